import json
from pathlib import Path

import pytest

from experiments import arms, curriculum
from experiments.curriculum import main


@pytest.fixture
def queued(monkeypatch):
    """Nothing is trained; what would be, is told."""
    asked = []

    def queue(plan, runs):
        jobs = plan({})
        asked.extend(job.name for job in jobs)
        return {job.name: record(job) for job in jobs}

    def own(jobs, runs):
        asked.extend(job.name for job in jobs)
        return {job.name: record(job) for job in jobs}

    monkeypatch.setattr(arms, "step_flops", lambda arm, depth, batch: 10**8)
    monkeypatch.setattr(curriculum, "run_queue", queue)
    monkeypatch.setattr(curriculum, "run_all", own)
    monkeypatch.setattr(curriculum.tracks, "clean", lambda data, stores: None)
    return asked


def record(job):
    curve = {"steps": [0, 8, 16], "losses": [7.0, 4.0, 3.0], "flops": [0, 80, 160]}
    flops = {"forward_backward": 160, "evaluation": 5}
    return dict(job.labels) | {
        "diverged": False,
        "bits_per_byte": 2.0,
        "steps": 16,
        "tokens": 16,
        "flops": flops,
        "curve": curve,
        "synthetic_accepted": 0.5,
    }


@pytest.mark.parametrize(
    "words",
    [["--seeds", "0"], ["--workers", "0"], ["--unit", "nan"], ["--data-dir", "/no"]],
)
def test_bad_input_is_one_line_and_exit_code_2(words, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(arms, "step_flops", lambda arm, depth, batch: 10**8)
    assert main([*words, "--stores", str(tmp_path), "--runs", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("curriculum: error: ")
    assert said.count("\n") == 1


def test_both_tables_are_written(queued, tmp_path, capsys):
    words = ["--seeds", "1", "--out", str(tmp_path), "--runs", str(tmp_path)]
    assert main(words) == 0
    assert len({*queued}) == len(queued)
    said = capsys.readouterr().out.split()
    read = [json.loads(Path(path).read_text()) for path in said]
    assert [one["table"] for one in read] == [
        "curriculum.pacing",
        "curriculum.synthesis",
    ]
    pacing, synthesis = (one["rows"] for one in read)
    assert [row["arm"] for row in synthesis] == [
        "none",
        "continuations",
        "recombinations",
    ]
    keys = {"arm", "difficulty", "pacing", "track", "total_flops", "seeds", "tokens"}
    keys |= {"steps_to_90_percent", "speed_up_steps_to_90_percent", "bits_per_byte"}
    assert all(keys <= row.keys() for row in pacing)
    assert pacing[0]["arm"] == "random"
    assert pacing[0]["steps_to_90_percent"] == pytest.approx(12.8)
    assert read[0]["command"].startswith("python -m experiments.curriculum --seeds 1")


def test_the_table_of_made_up_rows_needs_random_order_alone(queued, tmp_path):
    words = ["--only", "synthesis", "--seeds", "1", "--out", str(tmp_path)]
    assert main(words) == 0
    assert queued == [
        "pacing/random_s1",
        "synthesis/continuations_s1",
        "synthesis/recombinations_s1",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["curriculum.synthesis.json"]


def test_a_worker_takes_a_core_and_writes_no_table(queued, tmp_path, monkeypatch):
    pinned = []
    monkeypatch.setattr(curriculum, "pin", pinned.append)
    words = ["--workers", "2", "--worker", "1", "--out", str(tmp_path)]
    assert main(words) == 0
    assert pinned == [1]
    assert not any(tmp_path.iterdir())
