import json
from pathlib import Path

import pytest

from uets_jax.errors import UserError
from uets_jax.pilot import result as results
from uets_jax.pilot.plan import make_plan, together
from uets_jax.pilot.result import cost, result, text

FASTER = {"selection": 2.0, "growth": 0.6, "start": 3.0, "together": 3.5}
FULL = Path("full")


@pytest.fixture
def plan(given, free):
    made = make_plan(given, 1e9, 0.1)
    return together(made, given, ["selection", "start"])


def records(plan, law, step):
    """Of every shot, by a law of (arm, steps)."""
    return {
        shot.name: {
            "bits_per_byte": law(shot.arm, shot.config.train.steps),
            "flops": {"a": step * shot.config.train.steps + round(shot.waived / 0.9)},
            "seconds": {"train": 1.0},
        }
        for shot in plan.shots
    }


def power(arm, steps):
    return 1.2 + 2 * (steps * FASTER.get(arm, 1.0)) ** -0.2


def test_it_is_plain_values_of_every_arm(given, plan, free):
    found = result(given, plan, records(plan, power, free.step), FULL)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    names = ["selection", "growth", "learned", "start", "together"]
    assert [row["method"] for row in found["methods"]] == names
    assert all(len(row["flops"]) == len(row["losses"]) == 3 for row in found["methods"])
    assert found["full"] == {"flops": 1e9, "steps": 1000}
    assert found["recipe"]["methods"] == ["selection", "start"]
    assert "Together they were measured" in found["recipe"]["notes"][0]


def test_without_the_arm_of_all_that_help_the_best_is_the_recipe(given, free):
    plan = make_plan(given, 1e9, 0.1)
    plan.skipped["together"] = "no room"
    found = result(given, plan, records(plan, power, free.step), FULL)
    assert found["recipe"]["methods"] == ["start"]
    assert "Together: no room" in found["recipe"]["notes"][0]
    assert "together   not tried: no room" in text(found, Path("out"))


def test_a_recipe_without_a_command_says_why(given, plan, free, monkeypatch):
    def refuse(*args):
        raise UserError("no room")

    monkeypatch.setattr(results, "recommended", refuse)
    found = result(given, plan, records(plan, power, free.step), FULL)
    assert found["recipe"]["command"] is None
    assert text(found, Path("out")).splitlines()[-1] == "no room"


def test_leads_that_fall_too_fast_are_warned_of(given, plan, free):
    fast = lambda arm, steps: power("plain", steps) - 4 / steps * (arm == "learned")
    found = result(given, plan, records(plan, fast, free.step), FULL)
    [honest, warning] = found["warnings"]
    assert "measured at 10.00% of the budget, on 3 seeds" in honest
    assert warning.startswith("learned: its lead falls from 0.08")
    assert "the full run is 3.3 away" in warning


def test_a_plain_run_that_diverged_is_no_ground(given, plan, free):
    lost = lambda arm, steps: None if arm == "plain" else 2.0
    with pytest.raises(UserError, match=r"plain run diverges; lower --optim"):
        result(given, plan, records(plan, lost, free.step), FULL)


def test_the_cost_is_all_of_it_and_pays_after_some_runs():
    record = {"flops": {"a": 5, "evaluation": 2}, "seconds": {"train": 1.0}}
    found = cost([record], 70.0, [])
    assert found == {
        "flops": 7,
        "of_full": 0.1,
        "seconds": 1.0,
        "runs": 1,
        "break_even_runs": None,
    }
    helps = {"helps": True, "flops_ratio_ci_low": 2.0}
    no = {"helps": False, "flops_ratio_ci_low": 9.0}
    assert cost([record], 70.0, [helps, no])["break_even_runs"] == pytest.approx(0.2)
