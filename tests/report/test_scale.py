"""Ticks lie inside, scales hit their ends, thinned curves keep their spikes."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uets_jax.report import scale
from uets_jax.report.scale import Scale

finite = st.floats(-1e18, 1e18)
positive = st.floats(1e-12, 1e24)


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


def test_a_running_mean_keeps_the_costs_and_a_short_curve():
    points = [(float(i), (-1.0) ** i) for i in range(600)]
    means = scale.running_mean(points)
    assert [x for x, _ in means] == [x for x, _ in points]
    assert max(abs(y) for _, y in means[100:]) < 0.1
    assert scale.running_mean(points[:3]) == points[:3]
    assert scale.running_mean([]) == []


@pytest.mark.parametrize(
    ("value", "number"),
    [(1, 1.0), (2.5, 2.5), (-1e-200, 0.0), (1e101, None), (10**400, None)],
)
def test_numbers_that_can_be_drawn(value, number):
    assert scale.number(value) == number


@pytest.mark.parametrize("value", [None, True, "1", [1], float("nan"), float("inf")])
def test_all_else_is_no_number(value):
    assert scale.number(value) is None
