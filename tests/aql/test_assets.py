"""What is made from the text once per run, against what each part says alone."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.aql import assets
from uets_jax.config import KnobsConfig
from uets_jax.errors import UserError
from uets_jax.selection import blind, dedup, lexical, quality
from uets_jax.selection.natural import typical_gain

EOT, VOCAB, LENGTH, RUN = 0, 40, 16, 4
STARTS = np.arange(VOCAB) % 3 != 0


def chain(count: int, seed: int, low: int = 60, high: int = 90) -> list[np.ndarray]:
    """Texts without separators, in which few tokens may follow each token."""
    rng = np.random.default_rng(seed)
    after = np.random.default_rng(0).integers(1, VOCAB, (VOCAB, 3))
    texts = []
    for _ in range(count):
        text = [int(rng.integers(1, VOCAB))]
        while len(text) < rng.integers(low, high):
            text.append(int(after[text[-1], rng.integers(3)]))
        texts.append(np.array(text))
    return texts


def jumbled(texts: list[np.ndarray], seed: int) -> list[np.ndarray]:
    return [np.random.default_rng(seed).permutation(text) for text in texts]


NATURAL = chain(60, 1)
DOCUMENTS = [*NATURAL, *jumbled(chain(40, 2), 3)]


@pytest.fixture(scope="module")
def text():
    return assets.fit_text(DOCUMENTS, EOT, STARTS, LENGTH, RUN, NATURAL[:10])


def test_knobs_are_the_configs_as_arrays():
    found = assets.knobs(KnobsConfig(novelty=2.5, natural=-3.0))
    assert found._fields == tuple(KnobsConfig.__dataclass_fields__)
    assert (float(found.novelty), float(found.natural)) == (2.5, -3.0)
    assert all(x.dtype == jnp.float32 and x.shape == () for x in found)


def test_a_word_begins_where_the_bytes_do_with_white_space():
    pieces = [b" a", b"a", b"\nb", b"", b"\t", b"a b"]
    assert assets.word_starts(pieces).tolist() == [
        True,
        False,
        True,
        False,
        True,
        False,
    ]


def test_parts_are_fitted_to_the_text(text):
    counts = blind.fit_blind(DOCUMENTS, STARTS)
    chex.assert_trees_all_equal(text.blind, counts)
    gain = typical_gain(blind.score_documents(counts, DOCUMENTS))
    assert float(text.typical) == pytest.approx(gain)
    sample = lexical.fit(NATURAL[:10], DOCUMENTS)
    chex.assert_trees_all_equal(text.lexical, sample)
    assert int(text.eot) == EOT


def test_copies_are_counted_once():
    twice = [*DOCUMENTS, *DOCUMENTS[:30], *DOCUMENTS[:30]]
    kept = np.flatnonzero(dedup.deduplicate(twice).keep)
    assert len(kept) == len(DOCUMENTS)
    once = assets.fit_text(DOCUMENTS, EOT, STARTS, LENGTH, RUN)
    found = assets.fit_text(twice, EOT, STARTS, LENGTH, RUN)
    chex.assert_trees_all_equal(found, once)


def windows_of(documents: list[np.ndarray]) -> jax.Array:
    """All whole pieces of the text, in windows: fewer than are probed."""
    tokens = np.concatenate([np.append(EOT, ids) for ids in documents])
    pieces = len(tokens) // (LENGTH * RUN)
    tokens = tokens[: pieces * LENGTH * RUN].reshape(-1, LENGTH)
    return jnp.asarray(tokens, jnp.int32)


def test_scales_are_those_of_natural_windows(text):
    windows = windows_of(DOCUMENTS)
    order = quality.order(text.blind, text.typical, windows, text.eot, RUN)
    like = quality.likeness(text.lexical, windows, text.eot, RUN)
    natural = np.asarray(order) > -1.0
    assert 0.1 < natural.mean() < 0.9
    for scale, values, bins in (
        (text.order, order, assets.ORDER_BINS),
        (text.likeness, like, assets.LIKENESS_BINS),
    ):
        values = np.asarray(values)[natural]
        assert float(scale.mean) == pytest.approx(values.mean(), rel=1e-4, abs=1e-5)
        assert float(scale.deviation) == pytest.approx(values.std(), rel=1e-4)
        cells = np.searchsorted(np.asarray(scale.edges), values)
        shares = np.bincount(cells, minlength=bins) / len(values)
        assert len(shares) == bins
        assert shares.min() > 0.5 / bins
    assert float(text.order.mean) > float(np.asarray(order)[~natural].mean()) + 1


def test_without_a_sample_there_is_no_likeness():
    found = assets.fit_text(DOCUMENTS, EOT, STARTS, LENGTH, RUN)
    assert found.lexical is found.likeness is None


@pytest.mark.parametrize("target", [False, True])
def test_the_shapes_are_told_beforehand(target, text):
    real = text if target else text._replace(lexical=None, likeness=None)
    told = assets.text_shapes(VOCAB, target)
    chex.assert_trees_all_equal_structs(told, real)
    chex.assert_trees_all_equal_shapes_and_dtypes(told, real)


def test_a_text_shorter_than_a_piece_will_do():
    short = assets.fit_text(NATURAL[:8], EOT, STARTS, 64, 16)
    assert np.isfinite(jax.tree.leaves(short.order)[0])
    assert float(short.order.deviation) > 0


def test_text_in_no_order_is_refused():
    alike = [np.full(50, 7)] * 3
    with pytest.raises(UserError, match="blind"):
        assets.fit_text(alike, EOT, STARTS, LENGTH, RUN)


def test_operations_grow_with_the_text_and_the_sample():
    less = assets.operations(10_000, 100, 200, False)
    assert assets.operations(10_000, 100, 200, True) > less
    assert assets.operations(20_000, 200, 200, False) > 1.5 * less
    tokens = 1_000_000
    sparse = assets.operations(tokens, 10_000, 200, False)
    dense = assets.operations(tokens, 500, 200, False)  # all of them are judged
    assert dense > sparse
    config = dedup.operations(tokens, 10_000, assets.minhash.DedupConfig())
    scored = blind.operations(tokens, round(tokens * 2 * assets.JUDGED / 10_000), 200)
    assert sparse == config + scored
