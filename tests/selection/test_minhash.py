"""Signatures against Python sets, the formulas against simulation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.measure.jaxpr import count
from uets_jax.selection import minhash
from uets_jax.selection.documents import flatten
from uets_jax.selection.minhash import (
    DedupConfig,
    document_signatures,
    edited_similarity,
    match_probability,
    operations,
    signatures,
)

SINGLE = DedupConfig(shingle=3, bands=400, rows=1)
SMALL = DedupConfig(shingle=3, bands=4, rows=2)


def shingles(ids: np.ndarray, size: int) -> set:
    """The set that a text stands for."""
    return {tuple(ids[i : i + size].tolist()) for i in range(len(ids) - size + 1)}


def jaccard(a: np.ndarray, b: np.ndarray, size: int) -> float:
    one, other = shingles(a, size), shingles(b, size)
    return len(one & other) / len(one | other)


def of(texts: list, config: DedupConfig) -> np.ndarray:
    return document_signatures(flatten([np.asarray(t) for t in texts]), config)


def padded(texts: list, length: int, fill: int) -> jax.Array:
    rows = [np.pad(t, (0, length - len(t)), constant_values=fill) for t in texts]
    return jnp.asarray(np.stack(rows), jnp.int32)


def words(count: int, seed: int = 0, vocab: int = 500) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, vocab, count)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.8, 1.0])
def test_keys_agree_as_often_as_the_sets_are_similar(kept):
    a = words(1000)
    b = np.concatenate([a[: int(1000 * kept)], words(int(1000 * (1 - kept)), seed=1)])
    keys = of([a, b], SINGLE)[:, 1:]
    rate = (keys[0] == keys[1]).all(-1).mean()
    exact = jaccard(a, b, 3)
    assert abs(rate - exact) <= 4 * np.sqrt(exact * (1 - exact) / 400)


def test_bands_match_as_the_formula_says():
    config = DedupConfig(shingle=2, bands=3, rows=2)
    similarity, found = [], []
    for seed in range(300):
        a = words(60, seed)
        b = np.where(np.random.default_rng(seed).random(60) < 0.12, 900 + a, a)
        keys = of([a, b], config)[:, 1:]
        found.append((keys[0] == keys[1]).all(-1).any())
        similarity.append(jaccard(a, b, 2))
    expected = np.array([match_probability(s, config) for s in similarity])
    assert abs(np.mean(found) - expected.mean()) < 4 * np.sqrt(0.25 / 300)
    assert 0.5 < expected.mean() < 0.95


def test_edits_lower_the_similarity_as_the_formula_says():
    config, a = DedupConfig(shingle=4), words(20_000, vocab=10**6)
    for rate in (0.02, 0.05):
        edited = np.random.default_rng(1).random(len(a)) < rate
        measured = jaccard(a, np.where(edited, a + 10**6, a), 4)
        assert abs(edited_similarity(rate, config) - measured) < 0.02


def test_the_default_finds_what_the_docstring_says():
    default, wide = DedupConfig(), DedupConfig(shingle=5, bands=14, rows=8)
    at = lambda c, e: round(match_probability(edited_similarity(e, c), c), 3)
    assert [at(default, e) for e in (0.02, 0.035, 0.05)] == [1.0, 1.0, 0.984]
    assert [at(wide, e) for e in (0.02, 0.035, 0.05)] == [0.966, 0.647, 0.3]
    assert round(match_probability(0.2, default), 3) == 0.008


def test_rows_and_documents_have_the_same_keys_whatever_the_padding():
    texts = [words(n, seed=n) for n in (40, 3, 2, 1, 17, 4)] + [np.zeros(0, int)]
    lengths = jnp.asarray([len(t) for t in texts])
    expected = of(texts, SMALL)
    for length, fill in ((40, 0), (64, 7)):
        rows = padded(texts, length, fill)
        np.testing.assert_array_equal(signatures(rows, lengths, SMALL), expected)
        compiled = jax.jit(functools.partial(signatures, config=SMALL))(rows, lengths)
        np.testing.assert_array_equal(compiled, expected)
    assert expected.dtype == np.uint32
    assert expected.shape == (7, 5, 2)


def test_blocks_do_not_show(monkeypatch):
    texts = [words(n, seed=n) for n in (100, 1, 33, 64, 32, 31)]
    expected = of(texts, SMALL)
    monkeypatch.setattr(minhash, "BLOCK", 32)
    np.testing.assert_array_equal(of(texts, SMALL), expected)
    alone = np.concatenate([of([t], SMALL) for t in texts])
    np.testing.assert_array_equal(alone, expected)


def test_the_first_key_is_of_the_whole_sequence():
    a = words(30)
    again = np.concatenate([a, a])  # nearly the same set of shingles
    changed, swapped = a.copy(), a.copy()
    changed[20], swapped[[3, 4]] = 999, a[[4, 3]]
    keys = of([a, a.copy(), again, changed, swapped, a[:-1]], SMALL)[:, 0]
    assert (keys[0] == keys[1]).all()
    assert len({tuple(k) for k in keys[1:].tolist()}) == 5


def test_no_key_is_empty():
    assert of([words(5, seed=s) for s in range(200)], SMALL).any(-1).all()


def test_operations_are_what_the_ledger_counts():
    config, rows = DedupConfig(), jnp.zeros((4, 1024), jnp.int32)
    jaxpr = jax.make_jaxpr(functools.partial(signatures, config=config))(
        rows, jnp.full(4, 1024)
    )
    total = sum(cost.total for cost in count(jaxpr).total().values())
    assert abs(total / operations(4 * 1024, config) - 1) < 0.01


@pytest.mark.parametrize("name", ["shingle", "bands", "rows"])
def test_numbers_out_of_range_are_refused(name):
    with pytest.raises(UserError, match=rf"dedup\.{name}: must be at least 1, got 0"):
        DedupConfig(**{name: 0})
    with pytest.raises(UserError, match=r"dedup\.slots: must be a power of two"):
        DedupConfig(slots=1000)
