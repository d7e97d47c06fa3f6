import re

import numpy as np
import pytest

from experiments import aql_figures
from uets_jax.curriculum.stages import STAGES
from uets_jax.data.mixture import KINDS
from uets_jax.report.blocks import Note, Picture, Table

SVG = re.compile(r"<svg.*?</svg>", re.DOTALL)


def drawn(blocks):
    """The charts of a section, and its legends."""
    [picture] = [block for block in blocks if isinstance(block, Picture)]
    html = picture.draw()
    return SVG.findall(html), html


def notes(blocks):
    return " ".join(block.text for block in blocks if isinstance(block, Note))


def shares(mode, tenth, first=0.5):
    found = {f"{kind}_share": (1 - first) / 5 for kind in KINDS} | {
        "unique_share": first
    }
    more = {"windows": 10, "repeated_share": 0.0, "copied_share": 0.25}
    return {"mode": mode, "tenth": tenth, **found, **more}


ROWS = [shares(None, None, 0.1)] + [
    shares(mode, tenth) for mode in ("target", "blind") for tenth in (1, 2, None)
]


def test_every_kind_has_a_curve_in_every_mode():
    assert aql_figures.COLOR.keys() == {*KINDS}
    blocks = aql_figures.kinds(ROWS)
    charts, html = drawn(blocks)
    assert len(charts) == 2
    assert [chart.count("<path") for chart in charts] == [len(KINDS)] * 2
    assert "Mode target" in html
    assert html.count("<li>") == len(KINDS)
    [table] = (f for b in blocks if isinstance(b, Picture) for f in b.figures)
    assert isinstance(table, Table)
    assert len(table.rows) == len(ROWS)
    assert [cell.text for cell in table.rows[0]][:2] == ["the pool", "10.0%"]
    assert table.rows[1][0].text == "mode target, tenth 1"
    assert table.rows[1][-1].text == "25.0%"


def keys(mean):
    """Scores of a buffer with empty and barred rows."""
    sound = np.random.default_rng(0).normal(mean, 1.0, 90)
    return np.concatenate([sound, np.full(6, -np.inf), np.full(4, -4.5e6)])


def test_the_histogram_leaves_out_what_is_empty_or_barred():
    scores = {mode: {n: keys(n / 50) for n in (1, 50, 100)} for mode in ("target", "x")}
    blocks = aql_figures.buffer(scores)
    charts, html = drawn(blocks)
    assert [chart.count("<path") for chart in charts] == [3, 3]
    assert "Mode x, after steps 1, 50, 100" in html
    assert "target at the end: 90 of 100 rows are shown, 6 are empty and 4" in notes(
        blocks
    )


def test_the_outline_holds_every_row():
    edges = np.linspace(0.0, 4.0, 5)
    points = aql_figures._outline(edges, np.array([-7.0, 0.5, 1.5, 1.7, 9.0]))
    heights = [y for _, y in points]
    assert heights == [0, 2, 2, 2, 2, 0, 0, 1, 1, 0]
    assert [x for x, _ in points] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_a_buffer_of_equal_scores_and_an_empty_one_can_be_drawn():
    for values in (np.full(5, 2.0), np.full(5, -np.inf)):
        charts, _ = drawn(aql_figures.buffer({"target": {3: values}}))
        assert len(charts) == 1
    assert aql_figures.buffer({"target": {}}) == []


def stage_metrics(high):
    found = {"stage_high": high, "difficulty": high / 2}
    found |= dict.fromkeys((f"threshold_{name}" for name in STAGES[1:]), 0.5)
    found |= {f"share_{name}": 0.25 for name in STAGES}
    return {f"curriculum_{name}": value for name, value in found.items()}


def test_stages_show_their_thresholds_and_what_is_drawn():
    blocks = aql_figures.stages([stage_metrics(0.3 + 0.01 * i) for i in range(70)])
    charts, html = drawn(blocks)
    assert [chart.count("<path") for chart in charts] == [5, 4]
    for name in STAGES:
        assert f"</span>{name}</li>" in html
    assert "0.25, 0.5, 0.75" in notes(blocks)
    assert aql_figures.stages([]) == aql_figures.stages([{}]) == []


def test_a_curve_is_the_means_of_its_pieces():
    points = aql_figures._smooth([0.0, 1.0] * aql_figures.PIECES)
    assert len(points) == aql_figures.PIECES
    assert {y for _, y in points} == {0.5}
    assert [x for x, _ in points][:2] == pytest.approx([2.0, 6.0])
    assert aql_figures._smooth([3.0]) == [(50.0, 3.0)]


def test_a_diagram_has_a_curve_for_each_method_and_the_diagonal():
    rows = [
        {"method": m, "group": g, "confidence": c, "accuracy": c / 2, "predictions": 1}
        for m in ("softmax", "mc_dropout")
        for g in ("target", "unseen")
        for c in (0.9, 0.1)
    ]
    charts, html = drawn(aql_figures.calibration(rows))
    assert [chart.count("<path") for chart in charts] == [3, 3]
    assert [chart.count("<circle") for chart in charts] == [4, 4]
    assert "MC-dropout" in html
    assert "run its script first" in notes(aql_figures.calibration([]))
