"""Losses by a power law whose factors are known."""

import math

import numpy as np
import pytest

from uets_jax.measure.target import Interval
from uets_jax.pilot.gains import Line, bounded, gain, gains, line
from uets_jax.pilot.plan import PARTS, make_plan

SEEDS = (0, 1, 2)
SPENT = 1e9 * np.array(PARTS)


def law(flops):
    return 1.2 + 2.0 * np.asarray(flops) ** -0.1


def arm(faster=1.0, noise=0.0, rng=None) -> Line:
    """An arm that needs `faster` times fewer FLOPs than the law."""
    losses = np.tile(law(SPENT * faster), (len(SEEDS), 1))
    if rng is not None:
        losses = losses + rng.normal(0, noise, losses.shape)
    return Line(PARTS, SPENT, losses)


@pytest.mark.parametrize("faster", [0.4, 0.8, 1.25, 2.0, 3.5])
def test_a_planted_factor_is_found(faster):
    found = gain("m", SEEDS, arm(), arm(faster))
    assert found.ratio == pytest.approx(faster, rel=0.01)
    assert found.low == pytest.approx(found.ratio)
    assert found.high == pytest.approx(found.ratio)
    assert found.kind == "t"
    assert (found.helps, found.hurts) == (faster > 1, faster < 1)
    assert found.loss == pytest.approx(law(1e9 * faster))
    assert found.plain_loss == pytest.approx(law(1e9))


def test_what_is_out_of_reach_is_bounded_and_nothing_extrapolated():
    found = gain("m", SEEDS, arm(), arm(16.0))
    assert (found.ratio, found.kind, found.helps) == (None, "bounds", True)
    assert found.low == pytest.approx(4.0)
    assert found.to_dict()["flops_ratio_ci_high"] is None
    found = gain("m", SEEDS, arm(), arm(1 / 16))
    assert (found.ratio, found.helps, found.hurts) == (None, False, True)
    assert found.high == pytest.approx(0.25)


def test_the_interval_holds_the_factor_and_noise_alone_is_no_gain():
    """Noise of a fifth of a doubling; the nominal rate of false gains is 2.5 %."""
    rng = np.random.default_rng(0)
    noise = 0.2 * (law(1e9) - law(2e9))
    null = [gain("m", SEEDS, arm(1, noise, rng), arm(1, noise, rng)) for _ in range(60)]
    assert np.mean([one.helps for one in null]) <= 0.05
    assert np.mean([one.hurts for one in null]) <= 0.05
    assert np.mean([one.low <= 1 <= one.high for one in null]) > 0.9
    true = [gain("m", SEEDS, arm(1, noise, rng), arm(2, noise, rng)) for _ in range(60)]
    held = [one.low <= 2 <= one.high for one in true]
    assert np.mean(held) > 0.85
    assert np.mean([one.helps for one in true]) > 0.8


def test_what_a_seed_does_to_both_cancels():
    shift = np.array([[-0.01], [0.0], [0.01]])
    base, mine = arm(), arm(1.5)
    found = gain(
        "m",
        SEEDS,
        base._replace(losses=base.losses + shift),
        mine._replace(losses=mine.losses + shift),
    )
    assert found.helps
    assert found.ratio == pytest.approx(1.5, rel=0.05)


def test_a_lead_that_falls_says_when_it_is_gone():
    base = arm()
    fades = base.losses - np.array([0.4, 0.3, 0.2])
    found = gain("m", SEEDS, base, base._replace(losses=fades))
    assert found.leads == pytest.approx((0.4, 0.3, 0.2))
    assert found.doublings == pytest.approx(2.0)
    rises = base.losses - np.array([0.1, 0.2, 0.3])
    found = gain("m", SEEDS, base, base._replace(losses=rises))
    assert found.doublings == math.inf
    assert found.to_dict()["doublings_to_no_lead"] is None
    behind = gain("m", SEEDS, base, base._replace(losses=base.losses + 0.1))
    assert behind.doublings == 0


def records(plan, free, law):
    """Of every shot: bits per byte by (arm, part, seed)."""
    starts = {arm.name: arm.start for arm in plan.arms}
    return {
        s.name: {
            "bits_per_byte": law(s.arm, s.part, s.seed),
            "flops": {
                "forward_backward": free.step * s.config.train.steps,
                "statistics": starts[s.arm],
                "evaluation": 10**15,
            },
        }
        for s in plan.shots
    }


def test_arms_are_compared_by_what_they_spent_less_what_is_waived(given, free):
    plan = make_plan(given, 1e9, 0.1)
    found = records(plan, free, lambda arm, part, seed: 3 - part - seed)
    for one in plan.arms:
        made = line(plan, one, found)
        assert made is not None
        assert made.flops == pytest.approx(1e8 * np.array(PARTS), rel=0.03)
        assert made.losses == pytest.approx(
            np.array([[3 - part - seed for part in PARTS] for seed in plan.seeds])
        )


def test_a_budget_with_a_run_that_diverged_is_left_out(given, free):
    plan = make_plan(given, 1e9, 0.1)
    lost = {("growth", 0.25, 1), ("learned", 1.0, 0), ("start", 0.25, 0)}
    lost |= {("start", 0.5, 0)}
    bits = lambda arm, part, seed: None if (arm, part, seed) in lost else 3 - part
    found, skipped = gains(plan, records(plan, free, bits))
    by = {one.method: one for one in found}
    assert [*by] == ["selection", "growth"]
    assert len(by["growth"].leads) == 2
    assert "diverged" in skipped["learned"]
    assert "diverged" in skipped["start"]


def test_bounded_has_two_ends():
    assert bounded(Interval(1.0, 0.5, 2.0, 0.0, 3))
    assert not bounded(Interval(1.0, 0.0, 2.0, 0.0, 3))
    assert not bounded(Interval(1.0, 0.5, math.inf, 0.0, 3))
