import pytest

from experiments.bench_arms import COUNTING
from experiments.bench_known import key_of, recall
from experiments.bench_plan import Ladder, Options
from experiments.bench_rows import training_flops
from experiments.bench_tables import sorted_rows
from experiments.records import write_record
from experiments.runner import finished
from uets_jax.config import config_hash, to_dict

pytestmark = pytest.mark.usefixtures("free_steps")


def ladder(tmp_path, *names):
    targets = {("clean", ""): (2.0, 1.7)}
    return Ladder(Options(tmp_path, targets, ("clean",), names, trials=3))


@pytest.fixture
def ran(tmp_path):
    """(records of a ladder that was run to its end, its results)."""
    own, results = ladder(tmp_path, "+ memories"), {}
    while new := [job for job in own(results) if job.name not in results]:
        for job in new:
            labels = dict(job.labels)
            results[job.name] = {
                **labels,
                "name": job.name,
                "bits_per_byte": 2.1 - labels["budget_units"],
                "diverged": False,
                "blimp_accuracy": 0.5,
                "steps": job.config.train.steps,
                "flops": {"forward_backward": 5, "statistics": 2, "evaluation": 7},
                "seconds": {"train": 3.0, "compile": 1.0},
                "commit": "abc",
                "config": to_dict(job.config),
                "config_hash": config_hash(job.config),
            }
    for table, stage in (("trials", "trial"), ("runs", "final")):
        rows = sorted_rows(results, stage)
        write_record(f"bench.{table}", rows, "python", {}, "", tmp_path / "out")
    return tmp_path / "out", results


def test_runs_on_record_are_not_run_again(ran, tmp_path):
    out, results = ran
    own, runs = ladder(tmp_path, "+ memories"), tmp_path / "runs"
    assert recall(own, out, runs) == len(results)
    found = {}
    while new := finished(own(found), found, runs):
        found |= new
    for stage in ("trial", "final"):
        assert sorted_rows(found, stage) == sorted_rows(results, stage)
    assert {training_flops(r) for r in found.values()} == {7}


def test_another_rung_is_another_run(ran, tmp_path):
    out, results = ran
    own = ladder(tmp_path, "+ memories", "+ start")
    assert recall(own, out, tmp_path / "runs") == len(results)
    assert any("start" in job.name for job in own(results))
    assert recall(ladder(tmp_path, "b2m + start"), out, tmp_path / "other") == 0


def test_runs_that_were_counted_otherwise_are_not_taken(tmp_path):
    own = ladder(tmp_path, "+ start", "+ backoff")
    settings = {"learning_rate": 0.01, "adam_ratio": 1.0, "batch": 16}
    marks = {
        rung.name: key_of(next(own.seeds(rung, settings, 0.25)))[-2]
        for rung in own.rungs()
    }
    assert marks == {"+ start": None, "+ backoff": COUNTING}
    searched = own.trial(own.rungs()[-1], settings)
    assert key_of(searched)[-2] is None
