"""The pixels of curves, and the ticks that they are read at."""

import itertools
import re
from xml.etree import ElementTree

import pytest

from uets_jax.report.axis import Axis
from uets_jax.report.svg import Series, chart

NS = "{http://www.w3.org/2000/svg}"


def parse(svg):
    return ElementTree.fromstring(svg)


def path(svg, look):
    for element in parse(svg).iter(f"{NS}path"):
        if look in element.get("class", ""):
            numbers = [float(n) for n in re.findall(r"-?[\d.]+", element.get("d", ""))]
            return list(zip(numbers[::2], numbers[1::2], strict=True))
    raise AssertionError(look)


def ticks(svg, where):
    """{text: pixel} along the axis whose tick texts have the class `where`."""
    side = "x" if where == "mid" else "y"
    found = parse(svg).iter(f"{NS}text")
    return {
        t.text: float(t.get(side, "nan")) - (4 if side == "y" else 0)
        for t in found
        if t.get("class") == f"tick {where}"
    }


@pytest.mark.parametrize("log", [False, True])
def test_curve_points_lie_where_the_ticks_say(log):
    xs = [1e3, 1e4, 1e5] if log else [0.0, 2e3, 4e3]
    points = list(zip(xs, [1.0, 3.0, 2.0], strict=True))
    svg = chart([Series(points, 0)], Axis("tokens", log=log), Axis("loss"), "t")
    across, down = ticks(svg, "mid"), ticks(svg, "end")
    names = ["1k", "10k", "100k"] if log else ["0", "2k", "4k"]
    wanted = [
        (across[n], down[h]) for n, h in zip(names, ["1.0", "3.0", "2.0"], strict=True)
    ]
    for got, want in zip(path(svg, "line"), wanted, strict=True):
        assert got == pytest.approx(want, abs=0.11)


def test_a_known_pixel():
    points = [(0.0, 0.0), (5.0, 1.0), (10.0, 2.0)]
    svg = chart([Series(points, 0)], Axis("x"), Axis("y"), "t", (440, 290))
    left = 14 + 6.6 * len("0.5")
    middle = pytest.approx(((left + 424) / 2, (246 + 28) / 2), abs=0.06)
    assert path(svg, "line")[1] == middle


def test_log_axes_leave_out_zero_and_negative_values():
    points = [
        (0.0, 1.0),
        (-1.0, 2.0),
        (1.0, 0.0),
        (1.0, 1.0),
        (10.0, -1.0),
        (10.0, 2.0),
    ]
    svg = chart([Series(points, 0)], Axis("x", log=True), Axis("y", log=True), "t")
    assert len(path(svg, "line")) == 2


@pytest.mark.parametrize("points", [[], [(0.0, 0.0)]])
@pytest.mark.parametrize("kind", ["number", "time"])
def test_no_point_on_a_log_axis_says_so(points, kind):
    svg = chart([Series(points, 0)], Axis("x", kind, log=True), Axis("y"), "t")
    assert "no data" in svg
    parse(svg)


@pytest.mark.parametrize("style", ["faint", "line", "marks"])
def test_one_point_is_drawn(style):
    svg = chart([Series([(3.0, 4.0)], 0, style)], Axis("x"), Axis("y"), "t")
    parse(svg)
    assert "h0.01" in svg


def test_labels_are_pushed_apart_and_escaped():
    series = [
        Series([(0.0, 1.0), (1.0, 1.0 + i / 1e3)], i, label=f"<{i}>") for i in range(9)
    ]
    svg = chart(series, Axis("x"), Axis("y"), "t", (900, 400))
    texts = [t for t in parse(svg).iter(f"{NS}text") if "label" in t.get("class", "")]
    assert [t.text for t in texts] == [f"<{i}>" for i in reversed(range(9))]
    heights = [float(t.get("y", "nan")) for t in texts]
    gaps = [b - a for a, b in itertools.pairwise(heights)]
    assert min(gaps) >= 14.9
    assert max(heights) <= 400 - 44


def test_time_axes_use_round_units():
    points = [(1.0, 1.0), (7200.0, 2.0)]
    log = chart([Series(points, 0)], Axis("time", "time", log=True), Axis("y"), "t")
    assert list(ticks(log, "mid")) == ["1 s", "10 s", "1 min", "10 min", "1 h"]
    linear = chart([Series(points, 0)], Axis("time", "time", zero=True), Axis("y"), "t")
    assert "time (h)" in linear
    assert list(ticks(linear, "mid")) == ["0", "0.5", "1.0", "1.5", "2.0"]


def test_a_chart_is_described_in_words():
    line = Series([(0.0, 1.0), (100.0, 2.0)], 0, label="run")
    svg = parse(chart([line], Axis("step"), Axis("loss"), "t"))
    told = "run: from step 0, loss 1 to step 100, loss 2"
    assert svg.findtext(f"{NS}desc") == told
    assert (
        parse(chart([], Axis("x"), Axis("y"), "t")).findtext(f"{NS}desc") == "no data"
    )
