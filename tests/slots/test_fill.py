import dataclasses

import pytest

from uets_jax.component import Selection
from uets_jax.config import (
    CurriculumConfig,
    ExperimentConfig,
    GrowthConfig,
    OptimConfig,
    SelectConfig,
)
from uets_jax.errors import UserError
from uets_jax.models.presets import model_config
from uets_jax.slots import fill
from uets_jax.slots.values import CURRICULA, MonitorConfig
from uets_jax.validation import validate

BASE = ExperimentConfig()
OWN = Selection(lambda params: (), lambda *seen: seen, lambda *seen: seen)


@pytest.mark.parametrize(
    ("depth", "plan"),
    [
        (1, ""),
        (2, "depth=2:0.6"),
        (3, "depth=2:0.3,depth=3:0.6"),
        (4, "depth=2:0.3,depth=4:0.6"),
        (12, "depth=2:0.15,depth=4:0.3,depth=8:0.45,depth=12:0.6"),
    ],
)
def test_growth_doubles_up_to_the_depth_of_the_config(depth, plan):
    config = dataclasses.replace(BASE, model=model_config(depth=depth))
    found = fill.architecture("grow", config, "trigger")
    assert found.rooms["model"].depth == 1
    assert found.rooms["growth"].plan == plan
    assert found.rooms["growth"].method == ("trigger" if plan else "none")


def test_the_monitor_says_when_it_grows():
    growth = lambda monitor: fill.architecture("grow", BASE, monitor).rooms["growth"]
    assert growth(None).method == "fixed"
    assert growth("probe").method == "probe"
    assert growth(MonitorConfig(slope=0.1, every=0.2)).slope == 0.1
    own = GrowthConfig(method="fixed", plan="depth=5:0.5")
    assert fill.architecture(own, BASE, "probe").rooms["growth"] == own


def test_a_target_needs_a_sample():
    with pytest.raises(UserError, match="data_selector: 'aql_target' needs a sample"):
        fill.data_selector("aql_target", BASE, "")
    select = fill.data_selector("aql_target", BASE, "files:a.txt").rooms["select"]
    assert (select.mode, select.target) == ("target", "files:a.txt")


def test_an_own_selection_is_offered_a_pool():
    few = dataclasses.replace(BASE, select=SelectConfig(candidates=3))
    found = fill.data_selector(OWN, few, "")
    assert found.rooms["select"].candidates == 3
    assert found.overrides == {"select": OWN}
    assert fill.curriculum(OWN, few, None).overrides == {"select": OWN}
    with pytest.raises(UserError, match="curriculum: a Selection of your own"):
        fill.curriculum(OWN, few, "aql")


def test_the_ablation_of_the_learned_rule_is_muon():
    assert fill.optimizer(None, BASE).rooms["optim"] == OptimConfig(name="muon")
    assert fill.optimizer("learned", BASE).rooms["optim"].name == "learned"


def test_short_rows_come_first():
    found = fill.curriculum("length", BASE, None).rooms["curriculum"]
    assert found == CurriculumConfig(lengths="32:0.1,64:0.3")
    odd = dataclasses.replace(BASE, model=model_config(context=30))
    with pytest.raises(UserError, match="curriculum: 'length'"):
        fill.curriculum("length", odd, None)


@pytest.mark.parametrize("name", CURRICULA)
def test_every_curriculum_works_alone(name):
    rooms = fill.curriculum(name, BASE, None).rooms
    config = dataclasses.replace(BASE, **rooms)
    assert validate(config).curriculum != BASE.curriculum
