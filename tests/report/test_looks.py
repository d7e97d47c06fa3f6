"""Readings of layers and heads over a run."""

import math
from pathlib import Path

from uets_jax.report import looks
from uets_jax.report.run import Run


def look(step, **signals):
    return {"step": step, "signals": signals}


def run(*records, name="a") -> Run:
    return Run(name, Path(name), {}, {}, list(records), [])


def test_of_a_step_taken_twice_the_last_look_counts():
    taken = [look(2), look(4), look(6), look(4, noise_scale=1.0), look(5)]
    found = looks.looks(run(*taken))
    assert [one.step for one in found] == [2, 4, 5]
    assert looks.noise(found) == [(4, 1.0)]


def test_lines_without_a_look_are_passed_over():
    odd = [{"step": 1, "loss": 1.0}, {"signals": {}}, {"step": 2, "signals": [1]}]
    assert looks.looks(run(*odd)) == []


def test_only_positive_finite_noise_scales_are_drawn():
    values = [2.0, None, math.inf, math.nan, -1.0, 0.0, "x", 8]
    found = [looks.Look(float(i), {"noise_scale": v}) for i, v in enumerate(values)]
    assert looks.noise(found) == [(0.0, 2.0), (7.0, 8.0)]


def test_the_fall_is_the_slope_upside_down_where_it_is_known():
    values = [-0.5, None, math.nan, math.inf, "x", 0.25]
    found = [looks.Look(float(i), {"slope": v}) for i, v in enumerate(values)]
    assert looks.fall(found) == [(0.0, 0.5), (5.0, -0.25)]


def test_rows_are_blank_before_a_layer_is_there():
    lines = [look(1, rank=[1.0]), look(2), look(3, rank=[2.0, 4, math.inf])]
    rows = looks.rows(looks.looks(run(*lines)), "rank")
    assert [r.label for r in rows] == ["0", "1", "2"]
    assert rows[2].name == "layer 2"
    assert [r.values[:2] for r in rows] == [[1.0, None], [None, None], [None, None]]
    assert rows[0].values[2] == 2.0
    assert math.isnan(rows[2].values[2] or 0.0)


def test_heads_are_rows_of_their_layer():
    lines = [look(1, heads=[[0.1, 0.2], "x", [0.3]]), look(2, heads=[0.5])]
    rows = looks.rows(looks.looks(run(*lines)), looks.HEADS)
    assert [(r.label, r.group) for r in rows] == [("0.0", 0), ("0.1", 0), ("2.0", 2)]
    assert rows[1].name == "layer 0, head 1"
    assert [r.values for r in rows] == [[0.1, None], [0.2, None], [0.3, None]]
