import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.models import closed_form as start
from uets_jax.models.closed_form import Read, closed_form
from uets_jax.models.memory import ngram_hash
from uets_jax.models.presets import model_config
from uets_jax.models.transformer import make_model
from uets_jax.types import IGNORED, Batch

V, ROWS, LENGTH = 12, 256, 16
CONFIG = model_config("modern", "tiny", vocab=V, memory_rows=ROWS)
PLAIN = model_config("modern", "tiny", vocab=V)


def windows(tokens: np.ndarray, chunks: int = 4) -> Batch:
    """[chunks, R, L] of a text without documents; its last target is not known."""
    targets = np.append(tokens[1:], IGNORED)
    cut = lambda x: x.reshape(chunks, -1, LENGTH).astype(np.int32)
    zeros = np.zeros_like(cut(tokens))
    return Batch(cut(tokens), cut(targets), zeros[..., 0], zeros)


@pytest.fixture(scope="module")
def text() -> np.ndarray:
    """A second-order Markov chain: two tokens before say more than one."""
    rng = np.random.default_rng(0)
    table = rng.dirichlet(np.full(V, 0.15), (V, V))
    tokens = [0, 1]
    for _ in range(8190):
        tokens.append(rng.choice(V, p=table[tokens[-2], tokens[-1]]))
    return np.array(tokens)


@pytest.fixture(scope="module")
def begun(text):
    """(forward, fresh parameters, parameters from counts) with tables."""
    model = make_model(CONFIG)
    params = model.init(jax.random.key(0))
    make = jax.jit(lambda p, t: closed_form(CONFIG, p, Read(t)))
    return jax.jit(model.forward), params, make(params, windows(text))


def nats(forward, params, text) -> float:
    batch = jax.tree.map(lambda x: x[0], windows(text, 1))
    losses, _ = forward(params, batch)
    return float(losses.sum() / (batch.targets != IGNORED).sum())


def entropy(text, order: int) -> float:
    """Of the next token given `order` before it, as counted, in nats."""
    grams, seen = np.unique(
        np.lib.stride_tricks.sliding_window_view(text, order + 1),
        axis=0,
        return_counts=1,
    )
    (
        _,
        of,
    ) = np.unique(grams[:, :order], axis=0, return_inverse=True)
    total = np.bincount(of.ravel(), seen)[of.ravel()]
    return float(-(seen * np.log(seen / total)).sum() / seen.sum())


def test_bigrams_are_counted_as_a_loop_counts_them(text):
    batch = windows(text)
    expected = np.zeros((V, V))
    for one, two in itertools.pairwise(text):
        expected[one, two] += 1
    np.testing.assert_array_equal(start.bigram_counts(batch, V), expected)


def test_without_tables_the_untrained_model_is_the_bigram_model(text, key):
    """A width beyond the vocabulary can hold it; 3 % are left to 20 steps of Adam."""
    model = make_model(PLAIN)
    params = jax.jit(lambda p, t: closed_form(PLAIN, p, Read(t)))(
        model.init(key), windows(text)
    )
    found, best = nats(jax.jit(model.forward), params, text), entropy(text, 1)
    assert best < entropy(text, 0) - 0.1
    assert best - 1e-3 < found < 1.03 * best


def test_tables_add_what_the_token_before_says(begun, text):
    forward, _, params = begun
    zeros = jax.tree.map(jnp.zeros_like, params["memory"])
    found = nats(forward, params, text)
    without = nats(forward, {**params, "memory": zeros}, text)
    assert entropy(text, 2) < found < without - 0.3 * (without - entropy(text, 2))


def bigram_means(params) -> tuple[np.ndarray, np.ndarray]:
    """(head [V, D], E[w] by token) of the bigram model, by NumPy."""
    head = np.asarray(params["head"]["w"].T, np.float64)
    rows = np.asarray(params["embed"]["table"], np.float64)
    rows = rows / np.sqrt((rows**2).mean(1, keepdims=True) + 1e-6)
    raw = np.exp(15 * np.tanh(rows @ head.T / 15))
    return head, raw / raw.sum(1, keepdims=True) @ head


def test_sums_over_a_row_are_those_of_a_loop(begun, text):
    _, _, params = begun
    head, mean = bigram_means(params)
    batch = windows(text)
    flat = jnp.asarray(batch.tokens.reshape(-1, LENGTH))
    bucket = np.asarray(ngram_hash(flat, 2)).ravel()[:-1] % ROWS
    table = np.asarray(params["embed"]["table"])
    width = CONFIG.width
    missed, expected, inputs = np.zeros((3, ROWS, width))
    seen = np.zeros((ROWS, 1))
    for b, one, two in zip(bucket, text[:-1], text[1:], strict=True):
        missed[b] += head[two] - mean[one]
        expected[b] += mean[one]
        inputs[b] += table[one]
        seen[b] += 1
    found = start.sums(CONFIG, params, batch, 2, jnp.asarray(mean, jnp.float32))
    loops = start.Sums(missed, expected, inputs, seen)
    for name, one, other in zip(found._fields, found, loops, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-2, err_msg=name)


def test_a_rare_row_gets_one_step_along_the_mean_of_what_was_missed(
    begun, text, monkeypatch
):
    """And a longer n-gram starts from the mean with pseudo-counts of the shorter."""
    _, _, params = begun
    monkeypatch.setattr(start, "FITTED", 1)
    counts = start.bigram_counts(windows(text), V)
    rows = start.ngram_rows(CONFIG, params, counts, windows(text))
    head, mean = bigram_means(params)
    pairs = np.asarray(counts, np.float64)
    spread = (pairs.sum(0) @ (head**2).sum(1)) - pairs.sum(1) @ (mean**2).sum(1)
    step = start.STEP / (spread / pairs.sum() / CONFIG.width)
    sums = start.sums(CONFIG, params, windows(text), 2, jnp.asarray(mean, jnp.float32))
    sums = jax.tree.map(np.asarray, sums)
    expected = step * sums.missed / (sums.seen + start.SHRINK)
    rare = np.arange(ROWS) != sums.seen[:, 0].argmax()
    np.testing.assert_allclose(rows[2][rare], expected[rare], rtol=2e-3, atol=2e-3)
    told = sums.expected + sums.missed * sums.seen / (sums.seen + start.BACKED)
    told = told / np.maximum(sums.seen, 1)
    longer = start.sums(CONFIG, params, windows(text), 3, jnp.asarray(told))
    flat = jnp.asarray(windows(text).tokens.reshape(-1, LENGTH))
    two, three = (np.asarray(ngram_hash(flat, n)).ravel()[:-1] % ROWS for n in (2, 3))
    common = np.unique(three[~rare[two]])  # read after the one row that was fitted
    apart = np.setdiff1d(np.arange(ROWS), common)
    expected = step * np.asarray(longer.missed) / np.asarray(longer.seen + start.SHRINK)
    np.testing.assert_allclose(rows[3][apart], expected[apart], rtol=2e-3, atol=2e-3)


def test_a_common_row_says_what_was_counted(begun, text):
    """With a row per context, the model's mean of w is the smoothed one of the text."""
    _, _, params = begun
    _, mean = bigram_means(params)
    predict = start._predictor(CONFIG, params)
    pairs = start.sums(CONFIG, params, windows(text), 2, jnp.asarray(mean, jnp.float32))
    counts = start.bigram_counts(windows(text), V)
    step = start.STEP / start._curvature(CONFIG, params, jnp.asarray(mean), counts)
    place, rows, said = start.fitted(pairs, predict, step)
    many = np.asarray(pairs.seen)[place, 0] > 30
    seen = pairs.seen[place][many]
    inputs, base = pairs.inputs[place][many] / seen, pairs.expected[place][many] / seen
    goal = base + pairs.missed[place][many] / (seen + start.SHRINK)
    before = jnp.abs(goal - predict(inputs)).mean()
    after = jnp.abs(goal - predict(inputs + rows[many])).mean()
    assert many.sum() > 50
    assert after < 0.4 * before
    np.testing.assert_allclose(said[many], predict(inputs + rows[many]), atol=1e-4)


def test_only_embedding_head_and_tables_change(begun):
    _, fresh, params = begun
    chex.assert_trees_all_equal_shapes_and_dtypes(fresh, params)
    for name in ("blocks", "final_norm"):
        chex.assert_trees_all_equal(fresh[name], params[name])


def test_how_the_text_is_cut_into_chunks_changes_nothing(begun, text):
    _, _, params = begun
    counts, rows = [], []
    for chunks in (2, 4):
        batch = windows(text, chunks)
        counts.append(start.bigram_counts(batch, V))
        rows.append(start.ngram_rows(CONFIG, params, counts[-1], batch))
    chex.assert_trees_all_equal(*counts)
    chex.assert_trees_all_close(*rows, atol=1e-5)


def test_padding_and_masked_documents_are_left_out(key):
    """With `mask_documents` no n-gram reaches over a document's start."""
    config = model_config(
        "modern", "tiny", vocab=V, memory_rows=ROWS, mask_documents=True
    )
    tokens = np.tile(np.arange(LENGTH) % V, (1, 2, 1)).astype(np.int32)
    targets = np.where(np.arange(2)[:, None] == 0, np.roll(tokens, -1, 2), IGNORED)
    apart = np.tile(np.arange(LENGTH) // 8, (1, 2, 1)).astype(np.int32)
    fresh = make_model(config).init(key)
    rows = lambda batch: closed_form(config, fresh, Read(batch))["memory"]["bigram"][
        "table"
    ]
    one = Batch(tokens, targets.astype(np.int32), tokens[..., 0], apart)
    row, documents = jnp.asarray(tokens[0, :1]), jnp.asarray(apart[0, :1])
    start_of_document = ngram_hash(row, 2, documents)[0, 8] % ROWS
    across = ngram_hash(row, 2)[0, 8] % ROWS
    assert rows(one)[start_of_document].any()
    assert not rows(one)[across].any()


@pytest.mark.parametrize("shape", [(20, 12), (12, 20), (30, 30)])
def test_the_randomised_svd_finds_the_largest_values(shape):
    rng = np.random.default_rng(1)
    decay = np.diag(0.5 ** np.arange(min(shape)))
    left, right = (np.linalg.qr(rng.normal(size=(n, min(shape))))[0] for n in shape)
    matrix = jnp.asarray(left @ decay @ right.T)
    u, s, v = start.randomised_svd(matrix, 6)
    expected = np.linalg.svd(np.asarray(matrix), compute_uv=False)[:6]
    np.testing.assert_allclose(s, expected, rtol=1e-3)
    u_exact, _, vt = np.linalg.svd(np.asarray(matrix))
    best = (u_exact[:, :6] * expected) @ vt[:6]
    u, s, v = map(np.asarray, (u, s, v))
    np.testing.assert_allclose((u * s) @ v.T, best, atol=2e-3)


def test_a_rank_beyond_the_matrix_is_filled_with_zeros():
    u, s, v = map(np.asarray, start.randomised_svd(jnp.eye(4), 7))
    assert u.shape == (4, 7)
    assert v.shape == (4, 7)
    assert not s[4:].any()
    np.testing.assert_allclose((u * s) @ v.T, np.eye(4), atol=1e-5)
