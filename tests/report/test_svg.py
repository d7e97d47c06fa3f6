"""Ticks, scales and the pixels of curves."""

import itertools
import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uets_jax.report import scale, units
from uets_jax.report.axis import Axis
from uets_jax.report.scale import Scale
from uets_jax.report.svg import Series, chart

finite = st.floats(-1e18, 1e18)
positive = st.floats(1e-12, 1e24)
NS = "{http://www.w3.org/2000/svg}"


def check_ticks(ticks, low, high):
    assert 2 <= len(ticks) <= 10
    assert all(low <= t <= high for t in ticks)
    assert all(a < b for a, b in itertools.pairwise(ticks))


@given(finite, finite)
def test_linear_ticks_lie_inside_and_increase(a, b):
    low, high = scale.extent([a, b], log=False)
    check_ticks(scale.linear_ticks(low, high), low, high)


@given(positive, positive, st.floats(0.0, 0.2))
def test_log_ticks_lie_inside_and_increase(a, b, pad):
    low, high = scale.extent([a, b], log=True, pad=pad)
    check_ticks(scale.log_ticks(low, high), low, high)
    check_ticks(scale.log_time_ticks(low, high), low, high)


@pytest.mark.parametrize(
    "values", [[], [0.0], [5.0, 5.0], [-3.0], [1e99, -1e99, 1e-99]]
)
@pytest.mark.parametrize("log", [False, True])
def test_every_extent_has_a_width(values, log):
    low, high = scale.extent(values, log)
    assert low < high
    assert low > 0 or not log


def test_scale_maps_its_ends_and_its_middle():
    assert Scale(0.0, 10.0, 100.0, 200.0)(5.0) == 150.0
    assert Scale(1.0, 100.0, 300.0, 100.0, log=True)(10.0) == pytest.approx(200.0)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(-5, 5)), max_size=300))
def test_thinning_keeps_ends_and_extremes_and_bounds_the_count(points):
    points.sort(key=lambda p: p[0])
    kept = scale.thin(points, 10.0)
    assert len(kept) <= 2 * 11 + 2
    assert set(kept) <= set(points)
    if points:
        assert (kept[0], kept[-1]) == (points[0], points[-1])
        heights = [y for _, y in points]
        assert {min(heights), max(heights)} <= {y for _, y in kept}


@given(st.lists(st.floats(-5, 5), max_size=50), st.integers(0, 9))
def test_smoothing_keeps_length_range_and_the_first_value(values, half):
    means = scale.smooth(values, half)
    assert len(means) == len(values)
    if values:
        assert means[0] == pytest.approx(values[0])
        assert min(means) >= min(values) - 1e-9
        assert max(means) <= max(values) + 1e-9


def test_smoothing_leaves_a_straight_line_alone():
    line = [2.0 * i for i in range(40)]
    assert scale.smooth(line, 4)[:36] == pytest.approx(line[:36])


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


@given(st.floats(1e-300, 1e30))
def test_si_is_exact_to_its_digits(value):
    text = units.si(value, 4)
    number = float(text.rstrip("kMGTPEZYRQ"))
    power = units.PREFIXES.index(text[-1]) if text[-1] in units.PREFIXES else 0
    assert math.isclose(number * 1000.0**power, value, rel_tol=1e-3)


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        (units.si(0), "0"),
        (units.si(999.6), "1k"),
        (units.si(1.64e6), "1.64M"),
        (units.si(-1500), "-1.5k"),
        (units.si(2e-5), "2e-5"),
        (units.flops(1.23e15), "1.23 PFLOPs"),
        (units.flops(87), "87 FLOPs"),
        (units.duration(0.42), "0.42 s"),
        (units.duration(59.99), "1 min 00 s"),
        (units.duration(3599.9), "1 h 00 min"),
        (units.duration(7500), "2 h 05 min"),
        (units.duration(97200), "1 d 03 h"),
        (units.clock(3723), "1:02:03"),
        (units.memory(512 * 2**20), "512 MiB"),
    ],
)
def test_units(shown, wanted):
    assert shown == wanted
