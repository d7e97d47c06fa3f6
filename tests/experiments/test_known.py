from pathlib import Path

from experiments.known import recall, rows_of, written
from experiments.records import write_record
from experiments.runner import Job, finished
from uets_jax.config import ExperimentConfig

JOBS = [Job(f"a/{n}", ExperimentConfig(name=n), (("n", n),)) for n in "xy"]


def plan(results):
    """The second job only once the first is there."""
    return JOBS[: 1 + ("a/x" in results)]


def test_what_a_row_answers_for_is_written_and_leads_to_more(tmp_path):
    rows = {"x": {"loss": 1.0}, "y": {"loss": 2.0}}
    row_of = lambda job: rows.get(dict(job.labels)["n"])
    result_of = lambda job, row: {"bits": row["loss"]}
    assert recall(plan, row_of, result_of, tmp_path) == 2
    found = finished(JOBS, {}, tmp_path)
    assert {name: r["bits"] for name, r in found.items()} == {"a/x": 1.0, "a/y": 2.0}
    assert recall(plan, row_of, result_of, tmp_path) == 0


def test_what_was_run_here_stays(tmp_path):
    written(JOBS[0], {"bits": 9.0}, tmp_path)
    row_of = lambda job: {"loss": 1.0}
    again = recall(plan, row_of, lambda job, row: {"bits": row["loss"]}, tmp_path)
    assert again == 1
    assert finished(JOBS, {}, tmp_path)["a/x"]["bits"] == 9.0


def test_a_row_keeps_the_commit_that_it_was_run_at(tmp_path):
    rows = [{"arm": "a"}, {"arm": "b", "commit": "old"}]
    write_record("t.runs", rows, "python", {"unit": 1}, "", tmp_path)
    config, [first, second] = rows_of("t.runs", tmp_path)
    assert config == {"unit": 1}
    assert (first["arm"], second["commit"]) == ("a", "old")
    assert rows_of("t.none", Path(tmp_path)) == ({}, [])
