"""The arms, and that they spend what they are given."""

import math

import pytest

from experiments import arms
from experiments.arms import DEPTHS, REFERENCE_BATCH, UNIT, VOCAB, axes, config
from experiments.search import settings, start
from uets_jax.build import build
from uets_jax.errors import UserError
from uets_jax.measure import flops
from uets_jax.measure.jaxpr import count
from uets_jax.measure.work import Cost
from uets_jax.models.presets import PRESETS
from uets_jax.train.executable import shapes, trace_step
from uets_jax.train.mesh import make_mesh

ARMS = ("b0", "b1", "b2", "b2m")
RULES = {"b0": "adamw", "b1": "adamw", "b2": "muon", "b2m": "muon"}


def first(arm, **changes):
    """The settings that the search of an arm begins with."""
    return {**settings(axes(arm), start(axes(arm))), **changes}


def made(arm, depth=1, budget=0.25, seed=0, **changes):
    return config(arm, "tokens:x", first(arm, **changes), depth, budget * UNIT, seed)


@pytest.fixture
def cheap(monkeypatch):
    """FLOPs of a step without a trace."""
    flops = lambda arm, depth, batch: 10**8 * depth * batch
    monkeypatch.setattr(arms, "step_flops", flops)


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_has_the_architecture_of_its_name(arm):
    preset = "gpt2" if arm == "b0" else "modern"
    for depth in DEPTHS:
        c = made(arm, depth)
        assert c.model.preset == preset
        for field, value in PRESETS[preset].items():
            assert getattr(c.model, field) == value, field
        assert (c.model.depth, c.model.width, c.model.vocab) == (depth, 64, VOCAB)
        assert c.model.heads * c.model.head_dim == c.model.width
        assert (c.model.memory_rows > 0) == (arm == "b2m")
        assert c.optim.name == RULES[arm]
        assert c.train.mesh.data == 1
        assert c.train.checkpoint_every == 0


@pytest.mark.usefixtures("cheap")
def test_only_b0_is_the_standard_recipe():
    shown = lambda m: (m.position, m.norm, m.activation, m.tied, m.bias)
    assert shown(made("b0").model) == ("learned", "layer", "gelu", True, True)
    assert shown(made("b2").model) == ("rope", "rms", "relu2", False, False)


@pytest.mark.parametrize("arm", ARMS)
def test_a_search_begins_on_its_grid_with_room_on_both_sides(arm):
    for axis in axes(arm):
        assert 0 <= axis.start < len(axis.values)
        assert len({*axis.values}) == len(axis.values)
        if axis.name != "schedule":
            assert [*axis.values] == sorted(axis.values)
        assert axis.closed or axis.start > 0
        assert axis.closed_above or axis.start < len(axis.values) - 1
    names = [axis.name for axis in axes(arm)]
    assert names[0] == "learning_rate"  # `Baselines.best_rate` searches it again
    assert ("adam_ratio" in names) == (RULES[arm] == "muon")
    wanted = {"learning_rate", "batch", "weight_decay", "schedule", "warmup"}
    assert {*names} - {"adam_ratio"} == wanted


def test_a_search_begins_with_the_schedule_of_the_arm():
    """Linear, cosine and WSD are no scale: all are within two trials of the first."""
    for arm in ARMS:
        [axis] = [axis for axis in axes(arm) if axis.name == "schedule"]
        assert axis.start == 1
        assert {*axis.values} == {"linear", "cosine", "wsd"}
    assert first("b0")["schedule"] == "cosine"
    assert first("b2")["schedule"] == "wsd"


@pytest.mark.usefixtures("cheap")
def test_the_rate_goes_with_the_root_of_the_batch():
    rate = lambda batch: made("b1", batch=batch).optim.learning_rate
    assert rate(REFERENCE_BATCH) == first("b1")["learning_rate"]
    for batch in (1, 4, 64):
        known = rate(REFERENCE_BATCH) * math.sqrt(batch / REFERENCE_BATCH)
        assert rate(batch) == pytest.approx(known)


@pytest.mark.usefixtures("cheap")
def test_settings_stand_in_the_config():
    c = made("b2", 2, adam_ratio=4.0, weight_decay=0.3, schedule="linear", seed=7)
    assert (c.optim.adam_ratio, c.optim.weight_decay) == (4.0, 0.3)
    assert (c.optim.schedule, c.train.seed) == ("linear", 7)
    assert c.data.source == "tokens:x"
    for warmup in (0.0, 0.05, 0.2):
        c = made("b2", warmup=warmup)
        assert c.optim.warmup == round(warmup * c.train.steps)


# FLOPs


def traced(c):
    """What the ledger charges for one step of a run."""
    mesh = make_mesh(c.train.mesh)
    step = trace_step(build(c), mesh, shapes(c))
    return sum(count(step.jaxpr).total().values(), start=Cost())


@pytest.mark.parametrize("arm", ARMS)
def test_a_step_costs_what_the_ledger_counts(arm):
    """With other settings than those it was counted with, and in closed form. Adam's
    rate as a multiple of 1 saves a product per element of the tables: 0.2 %."""
    other = {"schedule": "linear", "warmup": 0.0, "weight_decay": 0.0}
    step = arms.step_flops(arm, 1, 8)
    ratios = (2.0, 1.0) if RULES[arm] == "muon" else (2.0,)
    for ratio, within in zip(ratios, (1e-6, 3e-3), strict=False):
        c = made(arm, batch=8, adam_ratio=ratio, **other)
        found = traced(c)
        assert step == pytest.approx(found.total, rel=within)
        known = sum(flops.step_flops(c).values())
        assert found.matmul == pytest.approx(known, rel=1e-3)
        assert 1 < step / found.matmul < 1.15


@pytest.mark.parametrize("arm", ARMS)
def test_a_budget_is_met_within_a_step(arm):
    for budget in (1 / 32, 0.25, 1.0):
        c = made(arm, budget=budget, batch=8)
        step = arms.step_flops(arm, 1, 8)
        assert abs(c.train.steps * step - budget * UNIT) <= step / 2
    with pytest.raises(UserError, match=r"1 FLOPs are less than a step.*--unit"):
        config(arm, "tokens:x", first(arm, batch=8), 1, 1.0)


def test_what_is_bought_follows_batch_depth_and_rule():
    step = arms.step_flops
    assert 1.9 < step("b0", 1, 8) / step("b0", 1, 4) < 2.0  # AdamW once per step
    assert 1.2 < step("b0", 2, 8) / step("b0", 1, 8) < 1.8  # the head stays
    for depth in (1, 2):
        muon, adam = step("b2", depth, 8), step("b1", depth, 8)
        known = flops.optimizer_flops(made("b2", depth))
        assert known < muon - adam < 1.2 * known  # Newton-Schulz


def test_the_unit_buys_two_million_tokens_for_b0_with_two_layers():
    c = made("b0", depth=2, budget=1.0, batch=16)
    assert c.train.steps * 16 * arms.LENGTH == pytest.approx(2e6, rel=0.03)
