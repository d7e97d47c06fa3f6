import dataclasses

import pytest

from experiments import arms, bench_times
from experiments.bench_times import (
    RungTime,
    Times,
    alone,
    baseline_time,
    rung_times,
    shares,
    undecided,
)
from experiments.step_times import StepTime


@pytest.fixture
def made(monkeypatch):
    """The configs that were timed."""
    found = []
    fake = lambda config: found.append(config) or StepTime(0.1, 1.0, 5, 2.0)
    monkeypatch.setattr(bench_times, "step_time", fake)
    return found


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


def test_times_are_kept_between_calls(tiny, tmp_path, made):
    class Plan:
        def rungs(self):
            return [type("Rung", (), {"key": "one"})()]

        def tuned(self, rung, results, jobs):
            return {}

        def seeds(self, rung, settings, budget):
            yield type("Job", (), {"config": tiny})()

    for _ in range(2):
        times = rung_times(Plan(), {}, Times(tmp_path / "times.json"))
        assert times["one"].seconds(10) == pytest.approx(3.0)
        assert times["one"].peak_bytes == 5
    assert len(made) == 1


def test_what_deciding_takes_is_timed_by_leaving_it_out(tiny, tmp_path, monkeypatch):
    select = dataclasses.replace(tiny.select, method="aql", candidates=4)
    deciding = dataclasses.replace(tiny, select=select)
    fake = lambda c: StepTime(0.1 if c.select.method == "none" else 0.125, 1.0, 5)
    monkeypatch.setattr(bench_times, "step_time", fake)
    times = Times(tmp_path / "times.json")
    assert times(deciding).control == pytest.approx(0.2)
    assert times(tiny).control == 0.0
    learned = dataclasses.replace(tiny.optim, name="learned")
    assert undecided(dataclasses.replace(tiny, optim=learned)).optim.name == "muon"


def test_a_baseline_is_timed_with_the_recipe_of_its_runs(tmp_path, made):
    run = {"arm": "b3", "recipe": "b2m", "track": "mixture", "depth": 1}
    run |= {axis.name: axis.values[axis.start] for axis in arms.axes("b2m")}
    time = baseline_time(tmp_path, run, Times(tmp_path / "times.json"))
    assert time.compile_seconds == 1.0
    [config] = made
    assert config.data.source == f"tokens:{tmp_path}/mixture.b"
    assert config.model.memory_rows == arms.TABLES["b2m"]
    assert config.optim.name == "muon"


def test_seconds_hold_every_stage_and_the_start():
    stages = ((0.75, StepTime(0.1, 1.0, 1, 3.0)), (0.25, StepTime(0.5, 1.0, 1, 3.0)))
    assert RungTime(stages).seconds(10) == pytest.approx(3 + 10 * (0.075 + 0.125))
