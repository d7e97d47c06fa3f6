import dataclasses
import math
from pathlib import Path

import pytest

from experiments import optimizer_compare
from experiments.meta_optimizer import main
from experiments.optimizer_compare import ROUNDS, searches, tables
from experiments.optimizer_grids import RULES
from experiments.optimizer_plan import OptimizerPlan, Options
from experiments.records import write_record
from experiments.step_times import StepTime
from uets_jax.config import to_dict


@pytest.fixture
def finished(monkeypatch):
    """A plan and results for all that it wants; nothing is run or timed."""
    timed = []

    def step_time(config):
        timed.append(config)
        return StepTime(0.1, 1.0, None)

    monkeypatch.setattr(optimizer_compare, "step_time", step_time)
    rules = ("adamw", "muon", "learned")
    options = Options(Path("stores"), tasks=("narrow", "encyclopedic"), rules=rules)
    plan, results = OptimizerPlan(options), {}
    while new := [job for job in plan(results) if job.name not in results]:
        for job in new:
            labels = dict(job.labels)
            speed = 1.0 if labels["rule"] == "adamw" else 1.5
            bits = 9.0 - math.log(speed * labels["share"])
            bits += labels["settings"].get("learning_rate", 0.0)  # less is better
            results[job.name] = {
                **labels,
                "bits_per_byte": bits,
                "diverged": False,
                "steps": job.config.train.steps,
                "final_train_loss": 3.0,
                "params": 10,
                "flops": {"optimizer": 1.0},
                "config": to_dict(job.config),
            }
    return plan, results, timed


def test_every_table_has_rows_that_can_be_written(finished, tmp_path):
    plan, results, _ = finished
    found = tables(plan, results, 100.0)
    names = {"compare", "trials", "runs", "robustness", "untuned"}
    assert {*found} == names
    for name, rows in found.items():
        write_record(f"optimizer.{name}", rows, "python", {}, "note", tmp_path)
    arms = [(r["task"], r["arm"]) for r in found["compare"]]
    assert arms[:3] == [("narrow", rule) for rule in ("adamw", "muon", "learned")]


def test_a_step_is_timed_once_for_each_shape_and_rule(finished):
    plan, results, timed = finished
    tables(plan, results, None)
    assert len(timed) == 3 * ROUNDS  # narrow and encyclopedic are of one shape
    rules = [config.optim.name for config in timed]
    assert rules[:3] == rules[3:6]  # in turn


def test_best_values_at_the_end_of_a_grid_are_named(finished):
    plan, results, _ = finished
    found = searches(plan, results)["narrow", "muon"]
    edges = found["edges"].split()
    assert "learning_rate" in edges
    assert found["trials"] == len(
        [n for n in results if n.startswith("trial/narrow/muon")]
    )
    assert found["untried"] == ""  # nothing is better than the least rate: it ended
    closed = [axis.name for axis in RULES["muon"] if axis.closed]
    assert not {*closed} & {*edges}


def test_a_search_that_was_stopped_says_what_it_did_not_try(finished):
    plan, results, _ = finished
    results = {k: v for k, v in results.items() if v["rule"] != "adamw"}
    small = OptimizerPlan(
        dataclasses.replace(plan.options, tasks=("narrow",), rules=("muon",), trials=2)
    )
    found = searches(small, results)["narrow", "muon"]
    assert "momentum-" in found["untried"].split()


def test_a_part_does_not_take_the_place_of_all(finished, tmp_path, capsys):
    plan, results, _ = finished
    rows = tables(plan, results, None)["compare"]
    write_record("optimizer.compare", rows, "python", {}, "note", tmp_path)
    words = ["--compare", "--only", "compare", "--task", "narrow", "--rule", "adamw"]
    assert main([*words, "--out", str(tmp_path)]) == 2
    assert "--known" in capsys.readouterr().err
