import pytest

from uets_jax.config import ExperimentConfig, GrowthConfig, replace_from_dict
from uets_jax.errors import UserError
from uets_jax.growth.stages import ladder
from uets_jax.models.presets import from_dict
from uets_jax.pilot.methods import METHODS, combined, plain
from uets_jax.validation import validate

NAMES = tuple(method.name for method in METHODS)
ALL = {
    "select": {"method": "aql", "candidates": 4},
    "growth": {"method": "trigger", "plan": "depth=2:0.3,depth=6:0.6"},
    "optim": {"name": "learned", "learning_rate": 0.01},
    "train": {"start": "counts"},
    "model": {
        "depth": 1,
        "memory_rows": 64,
        "memory_trained": False,
        "backoff_order": 3,
    },
}


def config(**rooms) -> ExperimentConfig:
    return from_dict(rooms)


def asked(one: ExperimentConfig) -> set[str]:
    return {method.name for method in METHODS if method.asked(one)}


def test_the_plain_run_has_no_method_and_the_last_size():
    base = plain(config(**ALL))
    assert not asked(base)
    assert base.model.depth == 6
    assert base.optim.name == "muon"
    assert base.optim.learning_rate == 0.01
    assert base.model.memory_rows == 64
    assert base.model.memory_trained
    assert base.model.backoff_order == 0
    assert validate(base) == base == plain(base)


def test_what_is_given_is_what_its_methods_make_of_the_plain_run():
    given = config(**ALL)
    assert combined(given, NAMES) == given
    assert combined(given, ()) == plain(given)


@pytest.mark.parametrize("name", NAMES)
def test_each_method_is_its_own_change(name):
    given = config(model={"depth": 4})
    one = validate(combined(given, [name]))
    assert asked(one) == {name}
    rooms = {
        "selection": {"select"},
        "growth": {"growth", "model"},
        "learned": {"optim"},
        "start": {"train", "model"},
    }
    differ = {r for r in vars(given) if getattr(one, r) != getattr(given, r)}
    assert differ == rooms[name]


def test_all_methods_go_together():
    one = validate(combined(config(), NAMES))
    assert asked(one) == set(NAMES)
    assert ladder(one)[-1].model.depth == ExperimentConfig().model.depth
    assert one.model.memory_rows == ladder(one)[-1].model.memory_rows > 0
    assert not one.model.memory_trained


@pytest.mark.parametrize(("depth", "last"), [(1, 2), (2, 2), (3, 3), (8, 8)])
def test_growth_begins_with_one_layer_and_comes_at_fixed_times(depth, last):
    one = combined(config(model={"depth": depth}), ["growth"])
    assert one.growth.method == "fixed"
    assert one.model.depth == 1
    assert ladder(one)[-1].model.depth == last
    assert GrowthConfig().rewarm == one.growth.rewarm


def test_a_sample_of_target_text_makes_the_selection_aim_at_it():
    aimed = combined(config(select={"target": "files:a"}), ["selection"]).select
    assert (aimed.method, aimed.mode, aimed.target) == ("aql", "target", "files:a")
    assert combined(config(), ["selection"]).select.mode == "blind"
    fewer = combined(config(select={"candidates": 4}), ["selection"]).select
    assert fewer.candidates == 4


def test_the_learned_rule_keeps_a_rate_of_muon_and_no_other():
    muon = config(optim={"name": "muon", "learning_rate": 0.005, "adam_ratio": 8.0})
    learned = combined(muon, ["learned"]).optim
    assert (learned.learning_rate, learned.adam_ratio) == (0.005, 8.0)
    adam = config(
        optim={"name": "adamw", "learning_rate": 1e-3, "rest_ratio": 2.0, "warmup": 7}
    )
    learned = combined(adam, ["learned"])
    assert validate(learned).optim.learning_rate == 0.02
    assert learned.optim.warmup == 7
    free = config(optim={"name": "schedule_free", "schedule": "constant"})
    assert combined(free, ["learned"]).optim.schedule == "wsd"


def test_blocks_that_freeze_later_are_trained_in_the_plain_run():
    values = {"growth": {"method": "fixed", "plan": "frozen=2:0.7"}}
    assert plain(replace_from_dict(config(), values)).model.frozen == 0


def test_a_selection_by_the_model_before_growth_does_not_stand_alone():
    given = config(
        model={"depth": 1},
        select={"method": "rho", "reference": "snapshot"},
        growth={"method": "fixed", "plan": "depth=2:0.5"},
    )
    assert validate(given) == combined(given, NAMES[:2])
    assert asked(given) == {"growth"}
    with pytest.raises(UserError, match=r"select\.reference: snapshot"):
        validate(combined(given, ["selection"]))
