import pytest

from uets_jax.config import replace_from_dict
from uets_jax.errors import UserError
from uets_jax.growth.stages import parse
from uets_jax.train.growing import decision_steps, due_step, probe_lengths
from uets_jax.train.growth_cost import growth_costs, look_cost, probe_cost


def with_growth(tiny, **growth):
    model = {"vocab": 64}
    return replace_from_dict(tiny, {"model": model, "growth": growth})


def test_a_run_that_stays_still_costs_nothing_more(tiny):
    assert growth_costs(with_growth(tiny)) == {}


def test_looks_are_counted_up_to_the_last_step(tiny):
    config = with_growth(tiny, look_every=3)  # of 8 steps: at 3 and 6
    assert growth_costs(config)["growth"].total == 2 * look_cost(config).total


def test_a_look_costs_more_once_there_are_more_layers(tiny):
    deep = replace_from_dict(with_growth(tiny), {"model": {"depth": 4}})
    assert look_cost(deep).total > 1.5 * look_cost(with_growth(tiny)).total


def test_probes_are_counted_at_every_decision_before_the_stage_is_due(tiny):
    plan = {"plan": "depth=3:0.8", "earliest": 0.25, "every": 0.25, "probe_steps": 2}
    config = with_growth(tiny, method="probe", **plan)
    stages = parse(config.growth)
    assert due_step(config, stages[0]) == 7
    assert decision_steps(config, stages, 0, 7) == [2, 4, 6, 7]
    found = growth_costs(config)["probe"].total
    assert found == 4 * probe_cost(config, stages).total


def test_a_pruning_stage_is_not_probed(tiny):
    config = with_growth(tiny, method="probe", plan="heads=1:0.5")
    assert not probe_cost(config, parse(config.growth)).total


def test_forks_spend_about_the_same():
    assert probe_lengths(10, [1.0, 2.0, 4.0]) == (40, 20, 10)
    assert probe_lengths(1, [3.0, 3.5]) == (1, 1)


def test_a_plan_that_can_not_be_read_is_one_line(tiny):
    with pytest.raises(UserError, match=r"growth\.plan"):
        growth_costs(with_growth(tiny, method="fixed", plan="depth"))
