import dataclasses

import jax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uets_jax.build import build
from uets_jax.config import ExperimentConfig, MeshConfig, OptimConfig, TrainConfig
from uets_jax.errors import UserError
from uets_jax.measure.devices import find
from uets_jax.models.presets import model_config
from uets_jax.train import footprint
from uets_jax.train.cost import compiled_bytes
from uets_jax.train.mesh import abstract_state, make_mesh

GIB = 2**30
CALM = settings(
    max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def card(memory: float):
    return dataclasses.replace(find("h100"), memory_bytes=float(memory))


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
        train=TrainConfig(batch=2, mesh=MeshConfig(data=1)),
    )


def test_what_a_step_needs_is_within_a_quarter_of_what_xla_says(tiny):
    memory = footprint.step_memory(tiny, find("cpu"))
    exact = compiled_bytes(tiny)
    assert sum(memory.values()) == pytest.approx(exact, rel=0.25)
    assert memory["optimizer"] == pytest.approx(2 * memory["parameters"], rel=0.01)


def test_a_fused_attention_writes_no_scores(tiny):
    fields = {"attention": "cudnn", "dtype": "bfloat16", "vocab": 100}
    model = dataclasses.replace(tiny.model, **fields)
    config = dataclasses.replace(tiny, model=model)
    assert needs(config, find("h100")) < needs(config, find("tpu-v5e"))


def test_scores_count_where_they_look_like_other_arrays(tiny):
    model = dataclasses.replace(tiny.model, attention="cudnn")
    config = dataclasses.replace(tiny, model=model)
    assert model.vocab == model.heads * model.context
    assert needs(config, find("h100")) == needs(config, find("cpu"))


def test_a_cpu_keeps_bfloat16_as_float32(tiny):
    model = dataclasses.replace(tiny.model, dtype="bfloat16", mask_documents=True)
    config = dataclasses.replace(tiny, model=model)
    cpu, card = find("cpu"), find("h100")
    assert needs(config, cpu) > 1.2 * needs(config, card)
    named = dataclasses.replace(cpu, name="laptop")
    assert needs(config, named) == needs(config, cpu)


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
    assert needs(gpt2_small) > 6 * GIB
    found = footprint.fits(gpt2_small, card(6 * GIB))
    assert found is not None
    assert found.microbatches > 1
    assert found.memory_bytes < 6 * GIB * (1 - footprint.RESERVE)
    changed = footprint.with_settings(gpt2_small, found.microbatches, found.remat)
    assert needs(changed) == found.memory_bytes


@pytest.fixture
def simple(monkeypatch):
    """A step that needs 1000 bytes, 100 a row alive (40 if it recomputes), and 300 for
    sums over microbatches.
    """

    def step_memory(config, device, *own):
        t = config.train
        rows = t.batch // t.microbatches
        need = 1000 + rows * (40 if config.model.remat else 100)
        return {"parameters": 0, "activations": need + 300 * (t.microbatches > 1)}

    monkeypatch.setattr(footprint, "step_memory", step_memory)


@given(st.lists(st.integers(900, 2500), min_size=2, max_size=2), st.booleans())
@CALM
def test_more_memory_never_needs_more(simple, tiny, memories, remat):
    config = footprint.with_settings(tiny, 1, remat)
    less, more = (footprint.fits(config, card(memory)) for memory in sorted(memories))
    if less is not None:
        assert more is not None
        assert (more.remat, more.microbatches) <= (less.remat, less.microbatches)
        assert less.memory_bytes <= sorted(memories)[0] * (1 - footprint.RESERVE)


@pytest.mark.parametrize(
    ("need", "expected"),
    [
        (1800, (1, False, 1800)),
        (1799, (2, False, 1700)),
        (1500, (4, False, 1500)),
        (1400, (8, False, 1400)),
        (1399, (1, True, 1320)),
        (1319, None),
    ],
)
def test_the_cheapest_way_that_fits_is_taken(simple, tiny, need, expected):
    found = footprint.fits(tiny, card((need + 0.5) / (1 - footprint.RESERVE)))
    assert (found and dataclasses.astuple(found)) == expected


def test_a_config_that_recomputes_stays_so(simple, tiny):
    config = footprint.with_settings(tiny, 4, True)
    assert footprint.fits(config, card(GIB)) == footprint.Fit(1, True, 1320)


@given(st.integers(0, 10**6), st.sampled_from([1, 2, 4]))
@CALM
def test_the_largest_batch_fits_and_the_next_does_not(simple, tiny, memory, parts):
    config = footprint.with_settings(tiny, parts, False)
    largest = footprint.largest_batch(config, card(memory))
    limit = card(memory).memory_bytes * (1 - footprint.RESERVE)
    need = lambda batch: 1000 + 100 * (batch // parts) + 300 * (parts > 1)
    assert largest % parts == 0
    assert need(largest + parts) > limit
    assert largest == 0 or need(largest) <= limit


def test_the_largest_batch_is_traced(tiny):
    device = card(3 * needs(tiny))
    largest = footprint.largest_batch(tiny, device)
    train = dataclasses.replace(tiny.train, batch=largest)
    need = needs(dataclasses.replace(tiny, train=train))
    share = need / device.memory_bytes
    assert 0.95 * (1 - footprint.RESERVE) < share <= 1 - footprint.RESERVE
