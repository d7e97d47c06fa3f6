import json
from types import SimpleNamespace

import pytest

from experiments import dynamic_arch
from experiments.records import read_record
from uets_jax.config import to_dict


@pytest.fixture
def quick(monkeypatch):
    """No data, no runs: every job of the plan ends at once, with made-up figures."""

    def run_queue(plan, runs):
        results = {}
        while new := [job for job in plan(results) if job.name not in results]:
            results |= {job.name: finished(job) for job in new}
        return results

    monkeypatch.setattr(dynamic_arch.tracks, "clean", lambda *given: None)
    monkeypatch.setattr(dynamic_arch, "run_queue", run_queue)
    monkeypatch.setattr(
        dynamic_arch.dynamic_times, "measured", lambda *given: Everything()
    )


class Everything(dict):
    """Half a second for whatever is asked."""

    def __missing__(self, key):
        return 0.5


def finished(job):
    """Loss falls with the share of the steps."""
    labels = dict(job.labels)
    steps, share = job.config.train.steps, labels["share"]
    return {
        **labels,
        "diverged": False,
        "bits_per_byte": 2.0 - 0.5 * share - 0.01 * labels["seed"],
        "steps": steps,
        "tokens": 1024 * steps,
        "params": 1,
        "final_params": 1,
        "flops": {"forward_backward": 1e9 * steps},
        "seconds": {"train": 1.0 * steps, "compile": 3.0},
        "growth": events(job.config),
        "phases": [{"seconds_per_step": 0.1}] * 3,
        "losses": [3.0] * steps,
        "config": to_dict(job.config),
    }


def events(config):
    """One change in the middle of the run, of the first field of its plan."""
    if not config.growth.plan:
        return []
    field, size = config.growth.plan.partition(":")[0].split("=")
    return [
        {
            "step": config.train.steps // 2,
            "ops": [{"field": field, "size": int(size)}],
            "exact": True,
            "loss_before": 3.0,
            "loss_after": 3.0,
            "params": 2,
            "step_flops_before": 1.0,
            "step_flops": 2.0,
        }
    ]


def test_all_tables_are_written(quick, tmp_path):
    assert dynamic_arch.main(["--out", str(tmp_path), "--seeds", "2"]) == 0
    for name in ("target", "target_trials", "events", "moments", "prune", "moe"):
        record = read_record(f"growth.{name}", tmp_path)
        assert record["rows"]
        assert record["command"].startswith("python -m experiments.dynamic_arch")
    rows = read_record("growth.target", tmp_path)["rows"]
    assert {row["tokens_per_param"] for row in rows} == {3, 10}


def test_one_table_alone(quick, tmp_path):
    given = ["--only", "moe", "--seeds", "2", "--out", str(tmp_path)]
    assert dynamic_arch.main(given) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["growth.moe.json"]


@pytest.mark.parametrize("given", [["--seeds", "0"], ["--workers", "0"]])
def test_bad_numbers_are_one_line(given, capsys):
    assert dynamic_arch.main(given) == 2
    assert "must be above 0" in capsys.readouterr().err


def test_what_is_read_off_a_run(tmp_path):
    lines = [
        {"step": s, "loss": 3.0, "router_load_max": 0.5, "router_dropped": 0.1}
        for s in (1, 2)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text)
    summary = {"growth": [], "phases": [], "params": 7}
    found = dynamic_arch.measured(tmp_path, SimpleNamespace(summary=summary))
    assert found["losses"] == [3.0, 3.0]
    assert found["router_load_max"] == 0.5
    assert found["final_params"] == 7
