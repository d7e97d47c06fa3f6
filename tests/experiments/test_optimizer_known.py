import math
from pathlib import Path

import pytest

from experiments import optimizer_rows
from experiments.optimizer_known import recall
from experiments.optimizer_plan import OptimizerPlan, Options
from experiments.records import write_record
from experiments.runner import finished
from uets_jax.config import config_hash, to_dict

RULES = ("adamw", "muon", "learned")


def plan(digest="aa", tasks=("encyclopedic",)):
    return OptimizerPlan(
        Options(Path("stores"), ("compare",), tasks, RULES, 4, 1.0, digest)
    )


@pytest.fixture
def out(tmp_path):
    """Records of a comparison that was run to its end, and how many runs it had."""
    own, results = plan(), {}
    while new := [job for job in own(results) if job.name not in results]:
        for job in new:
            labels = dict(job.labels)
            results[job.name] = {
                **labels,
                "bits_per_byte": 9.0 - math.log(labels["share"]),
                "diverged": False,
                "steps": job.config.train.steps,
                "params": 10,
                "flops": {"optimizer": 1.0, "evaluation": 7.0},
                "commit": "abc",
                "config": to_dict(job.config),
                "config_hash": config_hash(job.config),
            }
    records, config = list(results.values()), {"weights_sha256": "aa"}
    folder = tmp_path / "out"
    for name in ("trials", "runs"):
        rows = getattr(optimizer_rows, f"{name[:-1]}_rows")(records)
        write_record(f"optimizer.{name}", rows, "python", config, "note", folder)
    return folder, results


def test_runs_on_record_are_not_run_again(out, tmp_path):
    folder, results = out
    own, runs = plan(), tmp_path / "runs"
    assert recall(own, folder, runs) == len(results)
    assert recall(own, folder, runs) == 0
    found = finished(own(results), {}, runs)
    for table in (optimizer_rows.run_rows, optimizer_rows.trial_rows):
        rows = table(list(results.values()))
        again = table(list(recalled(own, runs).values()))
        assert sorted(map(str, rows)) == sorted(map(str, again))
    assert {record["commit"] for record in found.values()} == {"abc"}


def recalled(own, runs):
    results = {}
    while new := finished(own(results), results, runs):
        results |= new
    return results


def test_other_weights_and_other_configs_are_other_runs(out, tmp_path):
    folder, results = out
    known = recall(plan("bb"), folder, tmp_path / "b")
    learned = [r for r in results.values() if r["rule"] == "learned"]
    assert known == len(results) - len(learned)
    other = OptimizerPlan(Options(Path("elsewhere"), ("compare",), ("encyclopedic",)))
    assert recall(other, folder, tmp_path / "c") == 0
    assert recall(plan(), tmp_path / "nowhere", tmp_path / "d") == 0
