"""Global top-k on eight devices against one, and what the collectives carry."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from uets_jax.errors import UserError
from uets_jax.selection.sharded import stratified, top

MESH = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
SPLIT = NamedSharding(MESH, PartitionSpec("data"))
COLLECTIVE = re.compile(
    r" = (.*?) (?:all-gather|all-reduce|all-to-all|collective-permute|"
    r"collective-broadcast|reduce-scatter)(?:-start)?\("
)
WIDTH = {"f32": 4, "s32": 4, "u32": 4, "pred": 1}


def carried(compiled):
    """Bytes of the result of each collective in a compiled program."""
    sizes = []
    for result in COLLECTIVE.findall(compiled.as_text()):
        arrays = re.findall(r"(\w+)\[([\d,]*)\]", result)
        extents = [[int(d) for d in dims.split(",") if d] for _, dims in arrays]
        sizes.append(
            sum(
                WIDTH[kind] * math.prod(shape)
                for (kind, _), shape in zip(arrays, extents, strict=True)
            )
        )
    return sizes


def given(values, ids=None):
    scores = jnp.asarray(values, jnp.float32)
    ids = jnp.arange(len(scores)) if ids is None else jnp.asarray(ids)
    return jax.device_put((scores, ids), SPLIT)


@functools.cache
def best_of(k):
    return jax.jit(top(MESH, "data", k))


@pytest.mark.parametrize("k", [1, 30, 64])
@pytest.mark.parametrize("values", ["unequal", "ties", "one shard"])
def test_it_equals_one_device_with_ties_and_ids(k, values):
    rng = np.random.default_rng(k)
    scores = {
        "unequal": rng.normal(size=64),
        "ties": rng.integers(0, 3, 64),
        "one shard": np.where(np.arange(64) // 8 == 5, 9.0, 0.0),
    }[values]
    ids = rng.permutation(64).astype(np.int32) + 2**25  # beyond exact floats
    best = best_of(k)(*given(scores, ids))
    expected, place = jax.lax.top_k(jnp.asarray(scores, jnp.float32), k)
    np.testing.assert_array_equal(best.scores, expected)
    np.testing.assert_array_equal(best.ids, ids[place])
    np.testing.assert_array_equal(np.flatnonzero(best.mask), np.sort(place))
    assert best.mask.sharding.is_equivalent_to(SPLIT, 1)
    assert best.ids.sharding.is_fully_replicated


def test_nan_is_the_worst():
    values = -np.arange(64.0)
    values[[3, 9]] = np.nan
    best = best_of(30)(*given(values))
    assert not np.asarray(best.mask)[[3, 9]].any()
    assert int(best.mask.sum()) == 30


def test_rows_may_be_split_over_two_axes():
    mesh = jax.make_mesh((4, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    scores = np.random.default_rng(0).integers(0, 4, 32)
    split = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    args = jax.device_put((jnp.asarray(scores, jnp.float32), jnp.arange(32)), split)
    best = jax.jit(top(mesh, ("data", "fsdp"), 10))(*args)
    place = jax.lax.top_k(args[0], 10)[1]
    np.testing.assert_array_equal(best.ids, place)
    np.testing.assert_array_equal(np.flatnonzero(best.mask), np.sort(place))


def test_strata_take_an_equal_share_of_each_shard():
    scores = np.random.default_rng(1).normal(size=64)
    best = jax.jit(stratified(MESH, "data", 16))(*given(scores))
    rows = scores.reshape(8, 8)
    expected = np.argsort(-rows, axis=1)[:, :2] + 8 * np.arange(8)[:, None]
    np.testing.assert_array_equal(np.asarray(best.ids).reshape(8, 2), expected)
    np.testing.assert_array_equal(np.asarray(best.mask).reshape(8, 8).sum(1), 2)
    np.testing.assert_allclose(best.scores, scores[expected].reshape(-1), rtol=1e-6)


LENGTH, ROWS, K = 512, 256, 16


def compiled_step(select):
    """A step that selects rows and reads their payload, [ROWS, LENGTH]."""
    payload = jax.device_put(jnp.zeros((ROWS, LENGTH), jnp.int32), SPLIT)
    return jax.jit(select).lower(*given(np.zeros(ROWS)), payload).compile()


@pytest.mark.parametrize(
    ("kind", "most"), [(top, 8 * 8 * K), (stratified, 0)], ids=["top", "stratified"]
)
def test_no_collective_carries_rows(kind, most):
    choose = kind(MESH, "data", K)

    def select(scores, ids, payload):
        best = choose(scores, ids)
        return best, jnp.where(best.mask[:, None], payload, 0)

    sizes = carried(compiled_step(select))
    assert sum(sizes) <= most < K * LENGTH * 4 / 16
    assert bool(sizes) == bool(most)


def test_the_plain_way_would_carry_rows():
    """What the last test looks for is there where rows are gathered by place."""

    def select(scores, ids, payload):
        return payload[jax.lax.top_k(scores, K)[1]]

    assert max(carried(compiled_step(select))) >= K * LENGTH * 4


@pytest.mark.parametrize("kind", [top, stratified])
def test_rows_that_do_not_fit_are_refused(kind):
    choose = kind(MESH, "data", 8)
    with pytest.raises(UserError, match="12 rows do not divide by 8"):
        choose(jnp.zeros(12), jnp.arange(12))
    with pytest.raises(UserError, match="k 16 of 8 rows"):
        kind(MESH, "data", 16)(jnp.zeros(8), jnp.arange(8))
    with pytest.raises(UserError, match="k 12 does not divide"):
        stratified(MESH, "data", 12)
