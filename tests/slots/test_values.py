import numpy as np
import optax
import pytest

from uets_jax.config import (
    CurriculumConfig,
    ExperimentConfig,
    GrowthConfig,
    OptimConfig,
    SelectConfig,
)
from uets_jax.errors import UserError
from uets_jax.slots.values import SLOTS, Architecture, MonitorConfig, settled

BASE = ExperimentConfig()
KEPT = [
    ("data_selector", SelectConfig(method="aql")),
    ("architecture", GrowthConfig(method="fixed", plan="depth=2:0.5")),
    ("architecture", Architecture(BASE.model)),
    ("optimizer", optax.sgd(0.1)),
    ("curriculum", CurriculumConfig(difficulty="rarity")),
    ("monitor", MonitorConfig(slope=0.1)),
    *((slot, name) for slot, takes in SLOTS.items() for name in takes.names),
    *((slot, None) for slot in SLOTS),
]


@pytest.mark.parametrize(("slot", "value"), KEPT)
def test_what_a_slot_takes_stays_itself(slot, value):
    assert settled(slot, value, BASE) is value
    hash(settled(slot, value, BASE))


def test_a_dict_becomes_the_config_of_the_room():
    optim = settled("optimizer", {"name": "lion", "learning_rate": 1}, BASE)
    assert optim == OptimConfig(name="lion", learning_rate=1.0)
    found = settled("architecture", {"size": "tiny", "depth": 3}, BASE)
    assert (found.model.width, found.model.depth) == (32, 3)
    assert found.growth == GrowthConfig()
    assert settled("monitor", "runs/b2m.json", BASE).baseline == "runs/b2m.json"


WRONG = [
    ("data_selector", "aqi", "did you mean 'aql'"),
    ("data_selector", 3, "it takes None, 'aql', 'aql_target'"),
    ("data_selector", optax.sgd(0.1), "component.Selection"),
    ("data_selector", {"methd": "aql"}, "data_selector.methd"),
    ("architecture", "big", "'static'"),
    ("architecture", {"depht": 3}, "architecture: unknown key 'model.depht'"),
    ("architecture", np.ones(3), "init, forward and logits"),
    ("optimizer", SelectConfig(), "optax.GradientTransformation"),
    ("optimizer", {"name": "adam"}, "optimizer.name"),
    ("curriculum", OptimConfig(), "CurriculumConfig or a dict of its fields"),
    ("curriculum", "lenght", "did you mean 'length'"),
    ("monitor", "sometimes", "'trigger'"),
    ("monitor", 0.3, "path of a baseline"),
]


@pytest.mark.parametrize(("slot", "value", "why"), WRONG)
def test_a_wrong_value_names_the_slot_and_what_it_takes(slot, value, why):
    with pytest.raises(UserError) as refused:
        settled(slot, value, BASE)
    assert slot in str(refused.value)
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)
