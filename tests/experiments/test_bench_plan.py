import dataclasses

import pytest

from experiments import bench_arms, bench_plan
from experiments.bench_arms import Rung, axes
from experiments.bench_plan import Ladder, Options, started

TARGETS = {("clean", ""): (2.0, 1.7), ("mixture", "target"): (2.5, 1.8)}
TARGETS[("mixture", "blind")] = (2.5, 1.9)


pytestmark = pytest.mark.usefixtures("free_steps")


def plan(tmp_path, **fields) -> Ladder:
    return Ladder(Options(tmp_path, TARGETS, tracks=("clean",), **fields))


def carried_out(ladder, bits):
    """Results once all that the ladder wants is there."""
    results = {}
    for _ in range(500):
        left = [job for job in ladder(results) if job.name not in results]
        if not left:
            return results
        for job in left:
            labels = dict(job.labels)
            results[job.name] = {**labels, "bits_per_byte": bits(labels)}
    raise AssertionError("wants more and more")


def loss(labels) -> float:
    """Least at rate 0.02; every part helps, more FLOPs too."""
    rate = abs(MUON.index(labels["learning_rate"]) - MUON.index(0.02))
    parts = len(labels["parts"].split())
    return 2.2 - 0.1 * parts + 0.05 * rate - 0.1 * labels["budget_units"]


MUON = bench_arms.arms.MUON_RATES


def test_the_search_of_a_rung_starts_where_that_before_ended(tmp_path):
    found = plan(tmp_path, names=("+ memories", "+ start"))
    results = carried_out(found, loss)
    rungs = {r.name: r for r in found.rungs()}
    for rung in rungs.values():
        assert found.tuned(rung, results, [])["learning_rate"] == 0.02
    first = [
        n for n in results if n.startswith("trial/clean_+_start".replace("+_", "__"))
    ]
    assert "_0.02_" in first[0]


def test_budgets_go_down_to_t1_and_up_to_t2(tmp_path):
    found = plan(tmp_path, names=("+ memories",))
    results = carried_out(
        found, lambda labels: 1.9 if labels["budget_units"] < 0.1 else 1.8
    )
    budgets = {r["budget_units"] for r in results.values() if r["stage"] == "final"}
    assert budgets == {1 / 64, 1 / 32, 1 / 16, 0.125, 0.25, 0.5, 1.0}
    seeds = {r["seed"] for r in results.values() if r["stage"] == "final"}
    assert seeds == {1, 2, 3}


def test_no_budget_is_below_the_statistics(tmp_path):
    """2e10 of them: with a unit of 1e12, 3/4 of U/32 pays for them, U/64 does not."""
    found = plan(tmp_path, names=("+ start",), unit=1e12)
    results = carried_out(found, lambda labels: 1.5)
    budgets = {r["budget_units"] for r in results.values() if r["stage"] == "final"}
    assert sorted(budgets)[:2] == [3 / 4 / 32, 1 / 32]


def test_every_search_has_as_many_trials_at_most(tmp_path):
    found = plan(tmp_path, names=("uets_core",), trials=5)
    results = carried_out(found, loss)
    assert sum(r["stage"] == "trial" for r in results.values()) == 5


def test_a_start_off_the_grid_is_left_where_it_was():
    grid = axes(Rung("x", "clean"))
    moved = started(grid, {"learning_rate": 0.04, "batch": 7})
    assert moved[0].values[moved[0].start] == 0.04
    assert moved[1:] == grid[1:]


def test_a_rung_is_asked_for_by_name_or_by_path(tmp_path):
    options = Options(tmp_path, TARGETS, names=("+ start", "mixture/uets/blind"))
    found = [rung.path for rung in Ladder(options).rungs()]
    assert found == ["clean/+ start", "mixture/+ start", "mixture/uets/blind"]


def test_modes_share_the_search_of_what_comes_before_selection(tmp_path):
    names = ("mixture/+ select/target", "mixture/+ select/blind")
    found = Ladder(Options(tmp_path, TARGETS, names=names, trials=2))
    results = carried_out(found, loss)
    trials = [r for r in results.values() if r["stage"] == "trial"]
    assert {r["mode"] for r in trials if r["arm"] == "+ lengths"} == {""}
    assert len(trials) == 2 * 7  # five rungs before it, and it in each mode


def test_plans_of_other_options_are_other_plans(tmp_path):
    options = plan(tmp_path).options
    both = dataclasses.replace(options, tracks=("clean", "mixture"))
    assert len(Ladder(both).rungs()) > 2 * len(Ladder(options).rungs())
    assert options.trials == bench_plan.TRIALS
