import math
from pathlib import Path

import pytest

from experiments import optimizer_compare
from experiments.optimizer_compare import edges_of, tables
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
    assert len(timed) == 3  # narrow and encyclopedic are of one shape


def test_best_values_at_the_end_of_a_grid_are_named(finished):
    plan, results, _ = finished
    edges = edges_of(plan, results)
    assert "learning_rate" in edges["narrow", "muon"]
    closed = [axis.name for axis in RULES["muon"] if axis.closed]
    assert not {*closed} & {*edges["narrow", "muon"]}
