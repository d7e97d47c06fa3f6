import dataclasses

import chex
import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from uets_jax.build import build, hypers
from uets_jax.config import MeshConfig
from uets_jax.errors import UserError
from uets_jax.step import train_step
from uets_jax.train.mesh import (
    abstract_state,
    check_rows,
    compile_init,
    compile_step,
    leaf_spec,
    make_mesh,
    put_batch,
    row_shards,
)
from uets_jax.types import Batch

MESHES = {
    "data": MeshConfig(data=8),
    "fsdp": MeshConfig(data=1, fsdp=8),
    "mixed": MeshConfig(data=2, fsdp=2, tensor=2),
}


def batches(steps):
    rng = np.random.default_rng(1)
    for _ in range(steps):
        tokens = rng.integers(0, 64, (8, 33)).astype(np.int32)
        tokens[:, 1:] = (tokens[:, :1] + np.arange(1, 33)[None, :]) % 64  # learnable
        zeros = np.zeros((8, 32), np.int32)
        ids = np.arange(8, dtype=np.int32)
        yield Batch(tokens[:, :-1], tokens[:, 1:], ids, zeros)


def shaken(params):
    """No leaf is zero any more: each has a gradient in the first step."""
    rng = np.random.default_rng(0)
    noise = lambda x: (0.1 * rng.normal(size=x.shape)).astype(np.float32)
    return jax.tree.map(lambda x: jax.device_put(x + noise(x), x.sharding), params)


def run(config, mesh_config, steps):
    """(params after the first step, losses) with warm-up and clipping on."""
    program, mesh = build(config), make_mesh(mesh_config)
    step = compile_step(program, mesh)
    init = compile_init(program, mesh)
    state = init(hypers(config), config.train.seed)
    state = state._replace(params=shaken(state.params))
    first, losses = None, []
    for batch in batches(steps):
        state, metrics = step(state, put_batch(batch, mesh), None)
        first = jax.device_get(state.params) if first is None else first
        losses.append(float(metrics["loss"]))
    return state, first, np.asarray(losses)


@pytest.fixture(scope="module", params=["adamw", "muon"])
def alone(request, tiny):
    """(config, its run on one device)."""
    assert tiny.optim.clip > 0
    assert tiny.optim.warmup > 0
    optim = dataclasses.replace(tiny.optim, name=request.param)
    config = dataclasses.replace(tiny, optim=optim)
    return config, run(config, MeshConfig(data=1), 50)


@pytest.mark.parametrize("name", MESHES)
def test_eight_devices_take_the_same_steps_as_one(name, alone):
    config, expected = alone
    state, first, losses = run(config, MESHES[name], 50)
    assert len(state.params["head"]["w"].sharding.device_set) == 8
    chex.assert_trees_all_close(first, expected[1], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(losses, expected[2], rtol=1e-5, atol=1e-5)
    assert losses[-1] < losses[0] - 0.1


def test_parameters_and_moments_are_really_split(tiny):
    mesh = make_mesh(MESHES["mixed"])
    state = compile_init(build(tiny), mesh)(hypers(tiny), 0)
    query = state.params["blocks"]["attention"]["query"]["w"]
    assert query.sharding.spec == P(None, "fsdp", "tensor", None)
    assert query.addressable_shards[0].data.shape == (2, 16, 1, 16)
    moments = [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt)
        if "query" in jax.tree_util.keystr(path) and "'w'" in jax.tree_util.keystr(path)
    ]
    assert len(moments) == 2
    assert all(m.sharding == query.sharding for m in moments)


def test_an_axis_that_does_not_divide_stays_whole():
    mesh = make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))
    assert leaf_spec(("vocab", "width"), (65, 32), mesh) == P(None, "fsdp")
    assert leaf_spec(("layer", "hidden", "width"), (2, 6, 6), mesh) == P(
        None, "tensor", None
    )
    assert leaf_spec(("own", "own"), (8, 8), mesh) == P(None, None)


def test_a_compiled_step_is_traced_once_and_shared(tiny):
    program, mesh = build(tiny), make_mesh(MeshConfig(data=1))
    chex.clear_trace_counter()
    once = chex.assert_max_traces(lambda s, b: train_step(program, s, b), n=1)
    step = jax.jit(once)
    init = compile_init(program, mesh)
    for seed in (0, 1):
        config = dataclasses.replace(
            tiny, train=dataclasses.replace(tiny.train, seed=seed, steps=5 + seed)
        )
        assert build(config) is program
        state = init(hypers(config), seed)
        for batch in batches(2):
            state, _ = step(state, batch)
    assert compile_step(program, mesh) is compile_step(build(tiny), mesh)


def test_the_state_is_donated(tiny):
    program, mesh = build(tiny), make_mesh(MeshConfig(data=1))
    state = compile_init(program, mesh)(hypers(tiny), 0)
    old = state.params["head"]["w"]
    compile_step(program, mesh)(state, put_batch(next(batches(1)), mesh), None)
    assert old.is_deleted()


def test_the_abstract_state_describes_the_real_one(tiny):
    program, mesh = build(tiny), make_mesh(MESHES["mixed"])
    abstract = abstract_state(program, mesh)
    state = compile_init(program, mesh)(hypers(tiny), 0)
    same = jax.tree.map(
        lambda a, x: (a.shape, a.dtype, a.sharding) == (x.shape, x.dtype, x.sharding),
        abstract,
        state,
    )
    assert all(jax.tree.leaves(same))


def test_a_mesh_that_does_not_fit_is_refused():
    for bad in (MeshConfig(fsdp=3, data=3), MeshConfig(tensor=16)):
        with pytest.raises(UserError, match=r"train\.mesh.*8 devices"):
            make_mesh(bad)
    mesh = make_mesh(MeshConfig(fsdp=2))
    assert row_shards(mesh) == 8
    with pytest.raises(UserError, match=r"train\.batch.*multiple of 8"):
        check_rows(12, mesh, "train.batch")
    check_rows(16, mesh, "train.batch")


def test_shared_batches_land_row_by_row():
    mesh = make_mesh(MeshConfig(data=8))
    batch = next(batches(1))
    placed = put_batch(batch, mesh, shared=True)
    assert placed.tokens.addressable_shards[3].data.shape == (1, 32)
    np.testing.assert_array_equal(placed.tokens, batch.tokens)
