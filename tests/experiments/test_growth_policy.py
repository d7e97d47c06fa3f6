import json
import math

import pytest

from experiments import arms, growth_policy, growth_policy_ladder
from experiments.growth_policy import main
from experiments.growth_policy_train import Trained
from uets_jax.growth.learned import Policy, load_policy, save_policy
from uets_jax.growth.score import START

POLICY = Policy(START, 1e12, 300.0, {"law": [1.0]}, "abc", "cmd")


def record(job):
    """A larger last size is a lower loss; a run costs a step's FLOPs at its first."""
    growth = job.config.growth
    sizes = [job.config.model.width]
    events = []
    if growth.method in ("fixed", "trigger") or 0 < growth.cost < 1 <= len(growth.plan):
        events = [{"step": 5, "size": 64, "why": "x"}]
        sizes.append(64)
    loss = 4.0 - 0.01 * sizes[-1] + 0.001 * job.config.train.seed
    return dict(job.labels) | {
        "diverged": False,
        "final_loss": loss,
        "flops": {"forward_backward": 100 * job.config.train.steps, "evaluation": 5},
        "seconds": {"train": 1.0},
        "growth": events,
    }


@pytest.fixture
def queued(monkeypatch, tmp_path):
    """Nothing is trained; what would be, is told."""
    asked = []

    def queue(plan, runs):
        results = {}
        while jobs := [job for job in plan(results) if job.name not in results]:
            results |= {job.name: record(job) for job in jobs}
        asked.append([*results])
        return results

    def learn(records, ladder, said, effort):
        rows = [{"arm": "cem", "value": 1.0, "surrogate_flops": 5.0, "shipped": True}]
        return Trained(POLICY, None, rows)

    flops = lambda *given: 100
    monkeypatch.setattr(arms, "step_flops", flops)
    monkeypatch.setattr(growth_policy_ladder, "step_flops", flops)
    monkeypatch.setattr(growth_policy, "run_queue", queue)
    monkeypatch.setattr(growth_policy, "trained", learn)
    monkeypatch.setattr(growth_policy, "load_policy", lambda: POLICY)
    monkeypatch.setattr(growth_policy, "SHIPPED", tmp_path / "shipped.json")
    for track in ("clean", "mixture"):
        monkeypatch.setattr(growth_policy.tracks, track, lambda data, stores: None)
    return asked


def places(tmp_path, *words):
    return [*words, "--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]


@pytest.mark.parametrize("words", [["--seeds", "0"], ["--workers", "0"]])
def test_bad_input_is_one_line_and_exit_code_2(words, tmp_path, capsys):
    assert main(places(tmp_path, *words)) == 2
    said = capsys.readouterr().err
    assert said.startswith("growth_policy: error: ")
    assert said.count("\n") == 1


def test_all_phases_leave_the_policy_and_two_records(queued, tmp_path):
    assert main(places(tmp_path, "--seeds", "2")) == 0
    assert load_policy(tmp_path / "shipped.json") == POLICY
    read = lambda name: json.loads((tmp_path / "out" / f"{name}.json").read_text())
    training = read("growth.policy_training")
    assert training["config"]["cost"] == {"flops": 1e12, "core_seconds": 300.0}
    assert training["config"]["learned"] == {"law": [1.0]}
    rows = read("growth.policy")["rows"]
    cases = {(row["track"], row["horizon"], row["lambda"]) for row in rows}
    assert len(cases) == 3 * 3 + 1
    for case in cases:
        mine = [
            row for row in rows if (row["track"], row["horizon"], row["lambda"]) == case
        ]
        found = {row["arm"]: row for row in mine}
        assert {"learned", "best fixed"} <= {*found}
        if case[2] != 10.0:
            assert {"trigger", "random", "static 16", "static 64"} <= {*found}
        assert found["best fixed"]["difference"] is None
        low, high = (found["learned"][f"difference_{end}"] for end in ("low", "high"))
        assert math.isfinite(low)
        assert low <= found["learned"]["difference"] <= high
    [dear] = [r for r in rows if r["lambda"] == 10.0 and r["arm"] == "learned"]
    assert dear["stages"] == 0


def test_one_phase_alone(queued, tmp_path):
    assert main(places(tmp_path, "--only", "rollouts")) == 0
    [names] = queued
    assert len(names) == 40
    assert not (tmp_path / "out").exists()


def test_quick_leaves_the_shipped_policy_as_it_is(queued, tmp_path):
    save_policy(tmp_path / "shipped.json", POLICY)
    before = (tmp_path / "shipped.json").stat().st_mtime_ns
    assert main(places(tmp_path, "--quick")) == 0
    assert (tmp_path / "shipped.json").stat().st_mtime_ns == before
    quick = tmp_path / "runs" / "quick"
    assert load_policy(quick / "policy_width.json") == POLICY
    assert (quick / "results" / "growth.policy.json").exists()
    assert not (tmp_path / "out").exists()


def test_another_field_has_records_of_its_own(queued, tmp_path):
    words = places(tmp_path, "--field", "depth", "--only", "train")
    assert main(words) == 0
    assert not (tmp_path / "shipped.json").exists()
    assert (tmp_path / "out" / "growth.policy_training_depth.json").exists()


def test_workers_serve_one_phase_each(queued, tmp_path, monkeypatch):
    served, pinned = [], []
    serve = lambda workers, module, words: served.append((workers, module, words[-2:]))
    monkeypatch.setattr(growth_policy, "serve", serve)
    monkeypatch.setattr(growth_policy, "pin", pinned.append)
    assert main(places(tmp_path, "--workers", "2", "--seeds", "1")) == 0
    module = "experiments.growth_policy"
    assert served == [
        (2, module, ["--only", "rollouts"]),
        (2, module, ["--only", "verify"]),
    ]
    words = places(tmp_path, "--workers", "2", "--worker", "1", "--only", "rollouts")
    assert main(words) == 0
    assert pinned == [1]
