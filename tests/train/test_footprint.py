import dataclasses

import jax
import pytest

from uets_jax.build import build
from uets_jax.config import ExperimentConfig, MeshConfig, OptimConfig, TrainConfig
from uets_jax.errors import UserError
from uets_jax.measure.devices import find
from uets_jax.models.presets import model_config
from uets_jax.train import footprint
from uets_jax.train.mesh import abstract_state, make_mesh

GIB = 2**30


def card(memory: float):
    return dataclasses.replace(find("h100"), memory_bytes=memory)


def with_mesh(config, **fields):
    train = dataclasses.replace(config.train, mesh=MeshConfig(**fields))
    return dataclasses.replace(config, train=train)


def needs(config, device=None):
    return sum(footprint.step_memory(config, device or find("cpu")).values())


@pytest.fixture(scope="module")
def gpt2_small():
    return ExperimentConfig(
        model=model_config("gpt2", "gpt2-small", vocab=50304),
        optim=OptimConfig(name="adamw"),
        train=TrainConfig(batch=512, mesh=MeshConfig(data=1)),
    )


def test_what_a_step_needs_is_within_a_quarter_of_what_xla_says(tiny):
    memory = footprint.step_memory(tiny, find("cpu"))
    exact = footprint.compiled_bytes(tiny)
    assert sum(memory.values()) == pytest.approx(exact, rel=0.25)
    assert memory["optimizer"] == pytest.approx(2 * memory["parameters"], rel=0.01)


def test_cudnn_can_be_estimated_but_not_compiled_here(tiny):
    model = dataclasses.replace(tiny.model, attention="cudnn", dtype="bfloat16")
    config = dataclasses.replace(tiny, model=model)
    assert needs(config, find("h100")) < needs(config, find("tpu-v5e"))
    with pytest.raises(UserError, match="cudnn needs an NVIDIA GPU"):
        footprint.compiled_bytes(config)


def test_scores_count_where_they_look_like_other_arrays(tiny):
    model = dataclasses.replace(tiny.model, attention="cudnn", hidden=2 * 32)
    config = dataclasses.replace(tiny, model=model)
    assert needs(config, find("h100")) == needs(config, find("cpu"))


def test_a_mesh_splits_state_and_rows(tiny):
    one = footprint.step_memory(tiny, find("cpu"))
    config = with_mesh(tiny, data=2, fsdp=4)
    split = footprint.step_memory(config, find("cpu"))
    assert split["activations"] < one["activations"] / 4
    mesh = make_mesh(config.train.mesh)
    leaves = jax.tree.leaves(abstract_state(build(config), mesh).params)
    share = sum(x.sharding.shard_shape(x.shape) != x.shape for x in leaves)
    assert share > 0
    local = sum(
        4 * jax.numpy.prod(jax.numpy.array(x.sharding.shard_shape(x.shape)))
        for x in leaves
    )
    assert split["parameters"] == int(local)


def test_rows_that_cannot_be_split_are_refused(tiny):
    with pytest.raises(UserError, match="8 rows can't be split over 3 devices"):
        footprint.step_memory(with_mesh(tiny, data=3), find("cpu"))


def test_a_small_card_needs_microbatches_for_a_large_batch(gpt2_small):
    assert needs(gpt2_small) > 8 * GIB
    found = footprint.fits(gpt2_small, card(8 * GIB))
    assert found is not None
    assert found.microbatches > 8
    assert found.memory_bytes < 8 * GIB * (1 - footprint.RESERVE)
    changed = footprint.with_settings(gpt2_small, found.microbatches, found.remat)
    assert needs(changed) == found.memory_bytes
    assert footprint.fits(gpt2_small, card(GIB)) is None


def test_more_memory_never_needs_more(tiny):
    steps = [needs(tiny) * share for share in (0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2)]
    found = [footprint.fits(tiny, card(memory)) for memory in steps]
    first = next(i for i, fit in enumerate(found) if fit is not None)
    costs = [(fit.remat, fit.microbatches) for fit in found[first:]]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > costs[-1] == (False, 1)


def test_a_config_that_recomputes_stays_so(tiny):
    model = dataclasses.replace(tiny.model, remat=True)
    found = footprint.fits(dataclasses.replace(tiny, model=model), card(GIB))
    assert (found.microbatches, found.remat) == (1, True)


@pytest.mark.parametrize("share", [0.5, 1.0, 3.3])
def test_the_largest_batch_fits_and_a_larger_one_does_not(tiny, share):
    device = card(needs(tiny) * share / (1 - footprint.RESERVE) + 1000)
    largest = footprint.largest_batch(tiny, device)
    limit = device.memory_bytes * (1 - footprint.RESERVE)

    def need(batch):
        train = dataclasses.replace(tiny.train, batch=batch)
        return needs(dataclasses.replace(tiny, train=train))

    assert need(largest) <= limit < need(int(1.15 * largest) + 1)


def test_no_batch_fits_a_card_that_is_too_small(tiny):
    assert footprint.largest_batch(tiny, card(1000)) == 0
