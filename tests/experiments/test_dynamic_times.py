import json
from pathlib import Path

import pytest

from experiments import dynamic_times
from experiments.dynamic_plan import Arm, Options, configure
from experiments.step_times import StepTime
from uets_jax.config import to_dict

BEGIN = configure(Options(Path("stores")), Arm("x", 1), 1e5, 1)
RUN = {
    "config": json.loads(json.dumps(to_dict(BEGIN))),
    "steps": 100,
    "growth": [
        {"step": 30, "ops": [{"field": "depth", "size": 2}]},
        {"step": 80, "ops": [{"field": "depth", "size": 4}]},
    ],
}


def test_a_run_has_a_stage_for_each_shape():
    found = [(n, c.model.depth) for n, c in dynamic_times.stages(RUN)]
    assert found == [(30, 1), (50, 2), (20, 4)]


def test_its_seconds_are_those_of_each_stage():
    keys = [dynamic_times.key(c.model) for _, c in dynamic_times.stages(RUN)]
    times = dict(zip(keys, (1.0, 2.0, 4.0), strict=True))
    assert dynamic_times.seconds(RUN, times) == 30 + 100 + 80


def test_each_shape_is_timed_once_without_growth(tmp_path, monkeypatch):
    asked = []

    def timed(config):
        asked.append((config.model.depth, config.growth.method))
        return StepTime(0.5, 1.0, None)

    monkeypatch.setattr(dynamic_times, "step_time", timed)
    dynamic_times.measured([RUN, RUN], tmp_path)
    again = dynamic_times.measured([RUN], tmp_path)
    assert asked == [(1, "none"), (2, "none"), (4, "none")]
    assert set(again.values()) == {0.5}


def test_shapes_that_differ_have_other_names():
    names = {dynamic_times.key(c.model) for _, c in dynamic_times.stages(RUN)}
    assert len(names) == 3
    assert all("heads 2x32" in name for name in names)
    with pytest.raises(KeyError):
        dynamic_times.seconds(RUN, {})
