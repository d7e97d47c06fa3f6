import dataclasses

import pytest

from experiments import bench_tables
from experiments.bench_tables import alone, shares, sorted_rows
from experiments.runner import read_file
from uets_jax.config import to_dict


def test_shares_are_those_of_the_plan_of_growth(tiny):
    assert [share for share, _ in shares(tiny)] == [1.0]
    growth = dataclasses.replace(tiny.growth, method="fixed", plan="depth=4:0.75")
    found = shares(dataclasses.replace(tiny, growth=growth))
    assert [(share, one.model.depth) for share, one in found] == [(0.75, 2), (0.25, 4)]


def test_runs_of_one_shape_are_timed_once(tiny):
    other = dataclasses.replace(
        tiny,
        name="other",
        train=dataclasses.replace(tiny.train, steps=7, seed=3),
        optim=dataclasses.replace(tiny.optim, learning_rate=0.5),
    )
    wider = dataclasses.replace(tiny, model=dataclasses.replace(tiny.model, depth=3))
    assert alone(tiny) == alone(other) != alone(wider)


def test_rows_of_a_stage_carry_what_finds_them_again(tiny):
    run = {
        "name": "b",
        "stage": "final",
        "diverged": True,
        "bits_per_byte": None,
        "config": to_dict(tiny),
        "config_hash": "x",
    }
    results = {"b": run, "a": {**run, "name": "a"}, "c": {**run, "stage": "trial"}}
    rows = sorted_rows(results, "final")
    assert len(rows) == 2
    assert len({row["settings_hash"] for row in rows}) == 1
    assert all("config" not in row for row in rows)


def test_times_are_kept_between_calls(tiny, tmp_path, monkeypatch):
    from experiments.step_times import StepTime

    made = []
    monkeypatch.setattr(
        bench_tables, "step_time", lambda c: made.append(c) or StepTime(0.1, 1.0, 5)
    )

    class Plan:
        def rungs(self):
            return [type("Rung", (), {"key": "one"})()]

        def tuned(self, rung, results, jobs):
            return {}

        def seeds(self, rung, settings, budget):
            yield type("Job", (), {"config": tiny})()

    for _ in range(2):
        times = bench_tables.rung_times(Plan(), {}, tmp_path)
        assert times["one"].seconds(10) == pytest.approx(1.0)
    assert len(made) == 1
    assert read_file(tmp_path / "times.json") is not None
