"""The oracles: power laws whose ratio is known, and scipy's own statistics."""

import itertools
import math
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import optimize, stats

from uets_jax.errors import UserError
from uets_jax.measure.target import (
    Curve,
    Target,
    brackets,
    budget_at,
    loss_at,
    ratio,
    target_at,
)

BUDGETS = np.array([50.0, 100.0, 200.0])
FLAT = np.zeros((1, 1))
METHODS: tuple[Literal["bootstrap"], Literal["t"]] = ("bootstrap", "t")


def law(budgets, faster=1.0):
    """Bits per byte of an arm that needs `faster` times less than the law's own."""
    return 1.2 + 2.0 * (np.asarray(budgets) * faster) ** -0.25


def curve(budgets=BUDGETS, faster=1.0, noise=FLAT, seeds=None):
    losses = law(budgets, faster) + noise
    return Curve(np.asarray(budgets), losses, seeds or tuple(range(len(losses))))


def points(*losses):
    """A curve of one seed at budgets 1, 2, 4, ..."""
    return Curve(2.0 ** np.arange(len(losses)), np.array([losses]), (0,))


def crossing(c, target) -> float:
    """Where a curve that brackets the target reaches it."""
    found = budget_at(c, target)
    assert found is not None
    return found


def noisy(rng, n, sd, faster, shared=0.0):
    """(base, arm, target) with normal noise, and noise that a seed does to all."""
    offset = rng.normal(0, shared, (n, 1)) if shared else 0.0
    noise = lambda: offset + rng.normal(0, sd, (n, 3))
    base = curve(noise=noise())
    arm = curve(BUDGETS / 5, faster, noise())
    return base, arm, target_at(base, 100.0)


# One curve


@given(st.floats(1.0, 4.0))
def test_budget_and_loss_are_inverse(place):
    c = curve(np.array([10, 20, 40, 80]))
    budget = 10 * 2 ** (place - 1.0)
    [loss] = loss_at(c, budget)
    assert budget_at(c, float(loss)) == pytest.approx(budget, rel=1e-9)


def test_every_point_lies_on_its_curve():
    c = curve(noise=np.array([[0.0, 0.01, 0.0], [0.0, 0.0, 0.1]]))
    for i, budget in enumerate(BUDGETS):
        np.testing.assert_allclose(loss_at(c, budget), c.losses[:, i], rtol=1e-14)
        found = budget_at(c, float(c.losses[:, i].mean()))
        assert found == pytest.approx(budget, rel=1e-12)


def test_two_points_are_joined_by_a_line_over_log_budget():
    c = Curve(np.array([10.0, 1000.0]), np.array([[3.0, 2.0]]), (0,))
    assert budget_at(c, 2.5) == pytest.approx(100.0)
    assert loss_at(c, 100.0) == pytest.approx([2.5])


def test_nothing_is_extrapolated():
    c = curve()
    first, *_, last = law(BUDGETS)
    assert budget_at(c, first + 1e-6) is None
    assert budget_at(c, last - 1e-6) is None
    assert budget_at(c, first) == 50.0
    assert budget_at(c, last) == pytest.approx(200.0)
    for budget in (49.9, 200.1, math.nan):
        with pytest.raises(UserError, match="the curve has 50 to 200: run it there"):
            loss_at(c, budget)


def test_a_dip_by_luck_does_not_reach_the_target():
    dip = points(3.0, 2.0, 2.4, 1.0)
    pooled = points(3.0, 2.2, 2.2, 1.0)
    assert budget_at(dip, 2.1) == budget_at(pooled, 2.1)
    assert 4.0 < crossing(dip, 2.1) < 8.0
    assert budget_at(dip, 2.2) == pytest.approx(2.0)
    assert budget_at(points(3.0, 2.0, 2.4), 2.0) is None
    assert loss_at(dip, 2.0) == pytest.approx([2.0])


def test_a_curve_that_only_rises_is_one_mean():
    rising = points(1.0, 2.0, 3.0)
    assert budget_at(rising, 2.0) == 1.0
    assert budget_at(rising, 1.9) is budget_at(rising, 2.1) is None


@given(hnp.arrays(np.float64, 5, elements=st.floats(1.0, 2.0)))
@settings(max_examples=50)
def test_pooling_is_isotonic_regression(losses):
    fitted = optimize.isotonic_regression(losses, increasing=False).x
    dense = np.linspace(fitted[-1], fitted[0], 7)[1:-1]
    ours, theirs = points(*losses), points(*fitted)
    for target in dense if np.ptp(fitted) > 1e-6 else ():
        found, known = budget_at(ours, target), budget_at(theirs, target)
        assert found == pytest.approx(known, rel=1e-6)


@pytest.mark.parametrize(
    ("target_budget", "within", "answer"),
    [(100.0, 1.0, True), (70.0, 2.0, True), (70.0, 1.3, False), (200.0, 2.0, True)],
)
def test_brackets_wants_a_budget_near_on_both_sides(target_budget, within, answer):
    c = curve()
    assert brackets(c, float(loss_at(c, target_budget)[0]), within) is answer


def test_far_or_one_sided_budgets_do_not_bracket():
    wide = curve(np.array([10, 1000]))
    assert not brackets(wide, float(loss_at(wide, 100.0)[0]))
    assert brackets(wide, float(loss_at(wide, 100.0)[0]), within=10.0)
    assert not brackets(curve(), float(law(201.0)))


# The ratio of two curves


@given(st.floats(0.05, 50.0), st.floats(50.0, 200.0))
@settings(max_examples=50)
def test_a_scaled_grid_gives_the_factor_to_rounding(faster, at):
    base, arm = curve(), curve(BUDGETS / faster, faster)
    found = ratio(base, arm, target_at(base, at))
    assert found.value == pytest.approx(faster, rel=1e-9)


@given(st.floats(1.0, 2.0), st.floats(71.0, 141.0))
@settings(max_examples=50)
def test_other_grids_give_the_factor_within_the_interpolation(shift, at):
    """Grids that differ by `shift` cut the law at other places: a cubic through points
    2x apart errs by less than 0.1 % in budget on this law, two by less than 0.2 %."""
    grid = np.array([25.0, 50.0, 100.0, 200.0, 400.0])
    arm = curve(grid / (5 * shift), 5.0)
    found = ratio(curve(grid), arm, float(law(at)))
    assert found.value == pytest.approx(5.0, rel=0.002)


def test_without_noise_the_interval_is_a_point():
    still = np.zeros((3, 1))
    base, arm = curve(noise=still), curve(BUDGETS / 4, 4.0, still)
    for method, draws in zip(METHODS, (27, 3), strict=True):
        found = ratio(base, arm, target_at(base, 100.0), method=method)
        assert found == (
            pytest.approx(4.0),
            pytest.approx(4.0),
            pytest.approx(4.0),
            0.0,
            draws,
        )


def test_three_seeds_are_resampled_in_all_27_ways():
    base, arm, target = noisy(np.random.default_rng(0), 3, 0.01, 5.0)
    mean = lambda losses, rows: losses[[*rows]].mean(0, keepdims=True)
    one = lambda c, rows: Curve(c.budgets, mean(c.losses, rows), (0,))
    known = []
    for rows in itertools.product(range(3), repeat=3):
        [goal] = mean(target.losses, rows)
        known.append(crossing(one(base, rows), goal) / crossing(one(arm, rows), goal))
    found = ratio(base, arm, target)
    assert found.draws == 27
    assert (found.low, found.high) == pytest.approx((min(known), max(known)))
    assert found.value is not None
    assert found.low < found.value < found.high


def test_many_seeds_are_sampled_and_agree_with_every_resample():
    parts = noisy(np.random.default_rng(1), 5, 0.005, 5.0)
    exact, drawn = ratio(*parts), ratio(*parts, draws=3000)
    assert (exact.draws, drawn.draws) == (3125, 3000)
    assert (drawn.low, drawn.high) == pytest.approx((exact.low, exact.high), rel=5e-3)
    assert drawn == ratio(*parts, draws=3000) != ratio(*parts, draws=100, seed=1)


@pytest.mark.parametrize("method", METHODS)
def test_what_a_seed_does_to_all_cancels(method):
    rng = np.random.default_rng(2)
    base, arm, target = noisy(rng, 4, 0.003, 5.0)
    offset = rng.normal(0, 0.1, (4, 1))
    moved = lambda c: Curve(c.budgets, c.losses + offset, c.seeds)
    shifted = Target(target.losses + offset[:, 0], target.seeds)
    alone = ratio(base, arm, target, method=method)
    together = ratio(moved(base), moved(arm), shifted, method=method)
    assert together == pytest.approx(alone, rel=1e-9)


def test_other_seeds_are_resampled_alone():
    base, arm, target = noisy(np.random.default_rng(3), 3, 0.001, 5.0, shared=0.02)
    stranger = Curve(arm.budgets, arm.losses, (7, 8, 9))
    paired, alone = ratio(base, arm, target), ratio(base, stranger, target)
    assert (paired.draws, alone.draws) == (27, 27**2)
    assert alone.value == pytest.approx(paired.value)
    assert alone.high / alone.low > 1.1 * paired.high / paired.low
    with pytest.raises(UserError, match=r"t needs the same seeds.*\(7, 8, 9\)"):
        ratio(base, stranger, target, method="t")


def test_the_order_of_the_rows_does_not_matter():
    base, arm, target = noisy(np.random.default_rng(4), 3, 0.01, 5.0)
    turned = Curve(arm.budgets, arm.losses[[2, 0, 1]], (2, 0, 1))
    assert turned.seeds == (0, 1, 2)
    assert ratio(base, turned, target) == ratio(base, arm, target)


def test_the_t_interval_is_that_of_single_seeds_when_noise_is_small():
    base, arm, target = noisy(np.random.default_rng(5), 5, 1e-4, 5.0)
    logs = []
    for i in range(5):
        one = lambda c, i=i: Curve(c.budgets, c.losses[[i]], (0,))
        goal = float(target.losses[i])
        logs.append(math.log(crossing(one(base), goal) / crossing(one(arm), goal)))
    known = stats.t.interval(0.95, 4, np.mean(logs), stats.sem(logs))
    found = ratio(base, arm, target, method="t")
    width = math.log(found.high / found.low)
    assert width == pytest.approx(known[1] - known[0], rel=0.01)
    assert np.log([found.low, found.high]) == pytest.approx(known, abs=0.01 * width)


@pytest.mark.parametrize(("seeds", "bootstrap"), [(3, (0.68, 0.86)), (5, (0.75, 0.90))])
def test_t_holds_the_truth_as_often_as_it_says_and_bootstraps_do_not(seeds, bootstrap):
    """Of 200 experiments; two standard errors of a share of 0.95 are 0.03."""
    rng = np.random.default_rng(6)
    truth = 100.0 / crossing(curve(BUDGETS / 5, 5.3), float(law(100.0)))
    held = dict.fromkeys(METHODS, 0)
    for _ in range(200):
        parts = noisy(rng, seeds, 0.005, 5.3, shared=0.02)
        for method in METHODS:
            found = ratio(*parts, draws=300, method=method)
            held[method] += found.low <= truth <= found.high
    assert 0.92 <= held["t"] / 200 <= 0.98
    assert bootstrap[0] <= held["bootstrap"] / 200 <= bootstrap[1]


def test_a_target_out_of_reach_bounds_the_ratio_on_one_side():
    noise = np.array([[-1.0], [0.0], [1.0]]) * 1e-6
    base = curve(noise=noise)
    target = target_at(base, 100.0)
    slow, fast = curve(BUDGETS / 10, noise=noise), curve(BUDGETS, 10.0, noise)
    for arm, low, high in ((slow, 0.0, 100 / 20), (fast, 100 / 50, math.inf)):
        found = ratio(base, arm, target)
        assert (found.value, found.missed) == (None, 1.0)
        assert (found.low, found.high) == pytest.approx((low, high))
        found = ratio(base, arm, target, method="t")
        assert found == (None, 0.0, math.inf, 1.0, 3)
    assert ratio(fast, base, target).high == pytest.approx(50 / 100)
    assert ratio(slow, slow, target)[:3] == (None, 0.0, math.inf)


def test_draws_that_miss_are_counted_and_open_their_own_side():
    """The third seed alone keeps the arm from the target: 7 of 27 draws have it twice
    or more, and only they end above."""
    losses = np.array([[2.2, 1.8], [2.2, 1.8], [2.2, 2.3]])
    arm = Curve(np.array([10.0, 20.0]), losses, (0, 1, 2))
    base = Curve(np.array([50.0, 200.0]), np.full((3, 2), [2.2, 1.8]), (0, 1, 2))
    found = ratio(base, arm, 2.0)
    assert found.missed == pytest.approx(7 / 27)
    assert found.low == 0.0
    assert found.high == pytest.approx(100 / 200**0.5)
    left = ratio(base, arm, 2.0, method="t")
    assert (left.low, left.high, left.missed) == (0.0, math.inf, pytest.approx(2 / 3))


def test_one_seed_sets_no_bounds():
    base, arm = curve(), curve(BUDGETS / 4, 4.0)
    for method in METHODS:
        found = ratio(base, arm, target_at(base, 100.0), method=method)
        assert found == (pytest.approx(4.0), 0.0, math.inf, 0.0, 0)


# Bad input

ROWS = np.array([[3.0, 2.0, 1.0]])
BAD = {
    "needs two or more": lambda: Curve(np.array([1.0]), np.ones((1, 1)), (0,)),
    "budgets: .*ascending": lambda: Curve(BUDGETS[::-1], ROWS, (0,)),
    "give positive": lambda: Curve(np.array([0.0, 1.0, 2.0]), ROWS, (0,)),
    "positive, ascending": lambda: Curve(np.array([1.0, 2.0, np.inf]), ROWS, (0,)),
    r"shape \(1, 3\): \(2, 3\)": lambda: Curve(BUDGETS, ROWS, (0, 1)),
    "name each row once": lambda: Curve(BUDGETS, np.ones((2, 3)), (1, 1)),
    r"seeds: \(\)": lambda: Target(np.ones(0), ()),
    "leave such runs out": lambda: Curve(BUDGETS, ROWS * np.nan, (0,)),
    "finite and positive": lambda: Target(np.array([-1.0]), (0,)),
    "target: nan": lambda: budget_at(curve(), math.nan),
    "target: inf": lambda: ratio(curve(), curve(), math.inf),
    "0 draws": lambda: ratio(curve(), curve(), 2.0, draws=0),
}


@pytest.mark.parametrize("complaint", BAD)
def test_bad_input_is_named_in_one_line(complaint):
    with pytest.raises(UserError, match=complaint) as caught:
        BAD[complaint]()
    assert "\n" not in str(caught.value)


def test_a_curve_keeps_a_copy():
    budgets = np.array([1, 2])
    c = Curve(budgets, np.array([[3.0, 2.0]]), (5,))
    budgets[0] = 9
    assert c.budgets.tolist() == [1.0, 2.0]
