"""One hash in NumPy and in JAX; spread and independence of what it yields."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.measure.jaxpr import count
from uets_jax.selection.hashing import (
    bucket,
    check_buckets,
    constants,
    mix,
    ngram_operations,
    ngrams,
)

IDS = np.random.default_rng(0).integers(0, 1024, (3, 50), dtype=np.uint32)


def plain_mix(x: int) -> int:
    """`mix` in Python's integers."""
    x = (x ^ x >> 16) * 0x7FEB352D % 2**32
    x = (x ^ x >> 15) * 0x846CA68B % 2**32
    return x ^ x >> 16


def test_mix_is_the_published_function_and_a_bijection():
    some = constants(1000, seed=5)
    assert mix(some).tolist() == [plain_mix(x) for x in some.tolist()]
    assert len(np.unique(mix(np.arange(1 << 16, dtype=np.uint32)))) == 1 << 16


@pytest.mark.parametrize("order", [1, 2, 5])
def test_numpy_and_jax_agree_compiled_or_not(order):
    expected = ngrams(IDS, order)
    hashed = ngrams(jnp.asarray(IDS), order)
    assert expected.dtype == hashed.dtype == np.uint32
    assert expected.shape == (3, 51 - order)
    np.testing.assert_array_equal(hashed, expected)
    compiled = jax.jit(ngrams, static_argnums=1)(IDS, order)
    np.testing.assert_array_equal(compiled, expected)
    np.testing.assert_array_equal(bucket(hashed, 1 << 12), bucket(expected, 1 << 12))


def test_equal_ngrams_have_equal_hashes_and_others_have_not():
    grams = np.lib.stride_tricks.sliding_window_view(IDS % 8, 3, axis=1).reshape(-1, 3)
    hashed = ngrams(IDS % 8, 3).reshape(-1)
    by_gram = dict(zip(map(tuple, grams.tolist()), hashed.tolist(), strict=True))
    assert [by_gram[tuple(g)] for g in grams.tolist()] == hashed.tolist()
    assert len(set(by_gram.values())) == len(by_gram)
    assert ngrams(np.uint32([1, 2]), 2) != ngrams(np.uint32([2, 1]), 2)


def test_orders_and_seeds_are_different_hashes():
    one = np.arange(1 << 12, dtype=np.uint32)
    same = ngrams(one, 1) == ngrams(one, 1, seed=1)
    assert not same.any()
    assert not (ngrams(one, 2) == ngrams(one, 1)[1:]).any()


def test_buckets_are_filled_evenly():
    pairs = np.stack(np.meshgrid(np.arange(256), np.arange(256)), -1).reshape(-1, 2)
    filled = np.bincount(bucket(ngrams(pairs.astype(np.uint32), 2), 256)[:, 0])
    chi_square = ((filled - 256.0) ** 2 / 256).sum()
    assert abs(chi_square - 255) < 5 * np.sqrt(2 * 255)


def test_operations_are_what_the_ledger_counts():
    for order in (1, 4):
        jaxpr = jax.make_jaxpr(lambda x, n=order: ngrams(x, n))(jnp.asarray(IDS))
        total = sum(cost.total for cost in count(jaxpr).total().values())
        assert total == ngram_operations(order) * 3 * (51 - order)


@pytest.mark.parametrize("buckets", [0, 1, 100, -2, 1 << 31])
def test_buckets_are_a_power_of_two(buckets):
    with pytest.raises(UserError, match="table: must be a power of two"):
        check_buckets("table", buckets)
