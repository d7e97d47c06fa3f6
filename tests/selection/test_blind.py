"""Order gain: against dictionaries, and on text whose order is known."""

import itertools
import math
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.measure.jaxpr import count
from uets_jax.selection.blind import (
    BlindConfig,
    BlindState,
    fit_blind,
    operations,
    order_gain,
    order_terms,
    score_documents,
)

VOCAB = 40
CONFIG = BlindConfig(buckets=1 << 22, smoothing=2.0)
compiled = jax.jit(
    lambda s, i, m, c=True: order_gain(s, i, m, CONFIG, c), static_argnums=3
)
STARTS = np.arange(VOCAB) % 3 != 0


def markov(count: int, length: int, seed: int) -> list[np.ndarray]:
    """Texts of a chain in which each token is followed by one of three."""
    rng = np.random.default_rng(seed)
    after = np.random.default_rng(0).integers(0, VOCAB, (VOCAB, 3))
    text, texts = rng.integers(0, VOCAB, count), []
    for _ in range(length):
        texts.append(text)
        text = after[text, rng.integers(0, 3, count)]
    return list(np.stack(texts, 1))


def shuffled(texts: list[np.ndarray], seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.permutation(text) for text in texts]


ORDERED = markov(60, 50, 1)
POOL = [*ORDERED, *shuffled(markov(60, 50, 2), 3)]
ALL = np.ones(VOCAB, bool)


def marks(ids: np.ndarray) -> list[tuple]:
    """(context, token, context of the word before) at each place that counts."""
    ids, found, before = ids.tolist(), [], None
    for t, token in enumerate(ids):
        if t >= 2 and STARTS[token]:
            here = tuple(ids[t - 2 : t])
            if before is not None:
                found.append((here, token, before))
            before = here
    return found


def dense_gain(ids: np.ndarray, pool: list[np.ndarray], kappa: float) -> float:
    """The order gain from dictionaries, the text itself left out."""
    others = [m for text in pool if text is not ids for m in marks(text)]
    contexts = Counter(c for c, _, _ in others)
    pairs = Counter((c, w) for c, w, _ in others)
    words = Counter(w for text in pool for _, w, _ in marks(text))
    share = lambda w: (words[w] + 0.5) / (words.total() + 0.5 * VOCAB)
    side = lambda c, w: math.log(
        (pairs[c, w] / share(w) + kappa) / (contexts[c] + kappa)
    )
    gains = [side(here, w) - side(before, w) for here, w, before in marks(ids)]
    return sum(gains) / max(len(gains), 1)


def rows(documents: list[np.ndarray], length: int, fill: int = 0):
    mask = np.arange(length)[None] < np.array([len(d) for d in documents])[:, None]
    ids = np.full(mask.shape, fill)
    ids[mask] = np.concatenate(documents)
    return jnp.asarray(ids, jnp.int32), jnp.asarray(mask)


def test_gains_are_those_of_dictionaries():
    pool = POOL[50:70]
    state = fit_blind(pool, STARTS, CONFIG)
    expected = [dense_gain(text, pool, 2.0) for text in pool]
    gains = score_documents(state, pool, CONFIG)
    np.testing.assert_allclose(gains, expected, rtol=1e-4, atol=1e-5)


def test_ordered_text_is_told_from_its_own_shuffle_and_that_is_near_zero():
    gains = score_documents(fit_blind(POOL, ALL, CONFIG), POOL, CONFIG)
    ordered, disordered = gains[:60], gains[60:]
    assert ordered.min() > disordered.max() + 0.3
    assert abs(disordered.mean()) < 0.05


def test_a_template_gains_far_more_than_text():
    rng = np.random.default_rng(5)
    line = rng.permutation(VOCAB)
    templates = [np.tile(np.roll(line, k), 2)[:50] for k in range(20)]
    pool = [*POOL, *templates]
    gains = score_documents(fit_blind(pool, ALL, CONFIG), pool, CONFIG)
    assert gains[120:].min() > gains[:60].max()


def test_a_text_does_not_find_its_own_order():
    lonely = np.random.default_rng(1).integers(0, VOCAB, 50)
    pool = [*ORDERED, np.tile(lonely, 4)]
    state = fit_blind(pool, ALL, CONFIG)
    assert abs(score_documents(state, pool, CONFIG)[-1]) < 0.3
    assert score_documents(state, pool, CONFIG, counted=False)[-1] > 1


@pytest.mark.parametrize("counted", [True, False])
def test_rows_gain_as_documents_whatever_the_padding(counted):
    documents = [text[:n] for text, n in zip(POOL, range(51), strict=False)]
    state = fit_blind(documents, STARTS, CONFIG)
    expected = score_documents(state, documents, CONFIG, counted)
    for length, fill in ((50, 0), (64, 7)):
        ids, mask = rows(documents, length, fill)
        gains = compiled(state, ids, mask, counted)
        np.testing.assert_allclose(gains, expected, rtol=1e-4, atol=1e-5)


def distinct(texts: list[np.ndarray]) -> list[np.ndarray]:
    """The texts in which no pair of tokens comes twice, nor a word after itself."""
    pairs = lambda ids: [*itertools.pairwise(ids)]
    words = lambda text: [w for w in text.tolist() if STARTS[w]]
    once = lambda text: len(set(pairs(text.tolist()))) == len(text) - 1
    return [t for t in texts if once(t) and all(a != b for a, b in pairs(words(t)))]


def test_terms_are_the_gain_where_no_context_repeats():
    """But for a text's first place: its control was counted nowhere in the text, and
    is lowered by 1 all the same."""
    short = [text[:9] for text in POOL]
    state, texts = fit_blind(short, STARTS, CONFIG), distinct(short)
    assert len(texts) > 40
    ids, mask = rows(texts, 9)
    gains, used = order_terms(state, ids, jnp.zeros_like(ids), CONFIG)
    assert used.sum() > 100
    assert not gains[~used].any()
    seen = Counter(c for text in short for c, _, _ in marks(text))
    first = [[seen[b] for _, _, b in marks(text)[:1]] for text in texts]
    less = [sum(math.log((max(w - 1, 0) + 2.0) / (w + 2.0)) for w in f) for f in first]
    found = (gains.sum(1) - jnp.asarray(less)) / jnp.maximum(used.sum(1), 1)
    expected = compiled(state, ids, mask, True)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_terms_keep_the_texts_of_a_row_apart():
    state = fit_blind(POOL, STARTS, CONFIG)
    rng = np.random.default_rng(5)
    parts = [rng.integers(0, VOCAB, n) for n in (11, 1, 2, 17)]
    row, text = np.concatenate(parts)[None], np.repeat(range(4), (11, 1, 2, 17))[None]
    gains, used = order_terms(state, jnp.asarray(row, jnp.int32), jnp.asarray(text))
    ends = np.cumsum([len(part) for part in parts])
    for part, end in zip(parts, ends, strict=True):
        ids = jnp.asarray(part[None], jnp.int32)
        alone, counts = order_terms(state, ids, jnp.zeros_like(ids))
        here = slice(end - len(part), end)
        np.testing.assert_array_equal(used[0, here], counts[0])
        np.testing.assert_allclose(gains[0, here], alone[0], rtol=1e-5, atol=1e-6)


def test_terms_take_out_the_place_itself():
    once = [np.arange(12)]  # everything in it was seen here alone
    state = fit_blind(once, ALL, CONFIG)
    ids = jnp.arange(12)[None]
    gains, used = order_terms(state, ids, jnp.zeros_like(ids), CONFIG)
    assert used[0].tolist() == [False] * 3 + [True] * 9
    # context and pair less one: kappa / kappa; the control's context was seen once
    expected = -math.log(2.0 / (2.0 + 1.0 - 1.0))
    np.testing.assert_allclose(gains[0][used[0]], expected, atol=1e-6)


def test_compiled_or_not_it_is_the_same():
    state = fit_blind(POOL, STARTS, CONFIG)
    ids, mask = rows(POOL[:4], 50)
    plain = order_gain(state, ids, mask, CONFIG)
    np.testing.assert_allclose(compiled(state, ids, mask), plain, rtol=1e-5, atol=1e-6)


def test_too_little_text_gains_nothing():
    state = fit_blind(POOL, ALL, CONFIG)
    short = [np.arange(n) for n in range(4)]
    assert score_documents(state, short, CONFIG, counted=False).tolist() == [0.0] * 4
    for length in (1, 3):
        ids, mask = jnp.zeros((2, length), jnp.int32), jnp.ones((2, length), bool)
        assert compiled(state, ids, mask).tolist() == [0.0, 0.0]


def test_the_state_does_not_grow_with_the_pool():
    config = BlindConfig(buckets=64)
    shapes = lambda pool: jax.tree.map(jnp.shape, fit_blind(iter(pool), ALL, config))
    assert shapes(POOL) == shapes(POOL[:2]) == BlindState((40,), (40,), (64,), (64,))


def test_operations_are_about_what_the_ledger_counts():
    state = fit_blind(POOL, ALL)
    for length in (64, 256):
        ids, mask = jnp.zeros((4, length), jnp.int32), jnp.ones((4, length), bool)
        for counted in (True, False):
            jaxpr = jax.make_jaxpr(
                lambda i, m, c=counted: order_gain(state, i, m, counted=c)
            )(ids, mask)
            costs = count(jaxpr).total().values()
            total = sum(cost.total + cost.transcendental for cost in costs)
            ours = operations(0, 4 * length, length, counted)
            assert abs(total / ours - 1) < 0.03
    assert operations(1000, 0, 64) == 60_000


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match=r"blind\.buckets: must be a power of two"):
        BlindConfig(buckets=3)
    with pytest.raises(UserError, match=r"blind\.smoothing: must be above 0"):
        BlindConfig(smoothing=-1.0)
    with pytest.raises(UserError, match="id 39 in a vocabulary of 10"):
        fit_blind([np.arange(VOCAB)], ALL[:10])
    with pytest.raises(UserError, match="no word after another"):
        fit_blind(POOL, ~ALL)
