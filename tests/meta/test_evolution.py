"""A noisy quadratic within 40 runs; the plan is resumable; the report is honest."""

import math

import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.meta.evolution import evolve, next_points, outcome
from uets_jax.meta.knobs import Knob
from uets_jax.meta.strategy import EvolutionConfig

KNOBS = (
    Knob("rate", 1e-4, 1e-1, True, 3e-2),
    Knob("share", 0.0, 1.0, False, 0.2),
    Knob("width", 1.0, 64.0, True, 8.0),
)
BEST = {"rate": 1e-3, "share": 0.7, "width": 16.0}


def true_loss(settings):
    """Distance to the best in the unit cube, squared."""
    return sum(
        (knob.to_unit(settings[knob.name]) - knob.to_unit(BEST[knob.name])) ** 2
        for knob in KNOBS
    )


def noisy(noise, offset=0):
    """A run: what its seed adds is the same for all settings, and some noise is not."""

    def run(settings, seed):
        common = np.random.default_rng((seed, offset)).normal()
        own = [seed, offset, *(int(1e9 * x) for x in settings.values())]
        return (
            true_loss(settings) + common + noise * np.random.default_rng(own).normal()
        )

    return run


@pytest.mark.parametrize("shaping", ["rank", "plain"])
def test_it_beats_the_start_on_a_noisy_quadratic_within_40_runs(shaping):
    start = true_loss({knob.name: knob.start for knob in KNOBS})
    found = []
    for seed in range(8):
        config = EvolutionConfig(runs=40, pairs=4, shaping=shaping, seed=100 * seed)
        result, losses = evolve(KNOBS, noisy(0.03, seed), config)
        assert len(losses) == result.runs <= 40
        found.append(true_loss(result.settings[result.chosen]))
        assert result.loss < result.start_loss
    assert np.mean(found) < 0.15 * start
    assert max(found) < 0.5 * start


def test_what_is_reported_is_the_loss_on_fresh_seeds_not_the_best_of_many():
    """All points are equally good: the least of 40 is far too low, the report isn't."""
    least, reported = [], []
    flat = lambda settings, seed: float(
        np.random.default_rng(
            [seed, *(int(1e9 * x) for x in settings.values())]
        ).normal()
    )
    for seed in range(20):
        result, losses = evolve(KNOBS, flat, EvolutionConfig(seed=1000 * seed))
        least.append(min(losses))
        reported.append(result.loss)
    assert np.mean(least) < -1.5
    assert abs(np.mean(reported)) < 0.5  # 3 standard errors of 20 means of 2


def test_no_seed_serves_two_phases():
    losses, seeds, config = [], {}, EvolutionConfig()
    run = noisy(0.1)
    while points := next_points(KNOBS, losses, config):
        for point in points:
            seeds.setdefault(point.phase, set()).add(point.seed)
        losses += [run(point.settings, point.seed) for point in points]
    assert sorted(seeds) == ["choose", "confirm", "search"]
    assert sum(map(len, seeds.values())) == len(set.union(*seeds.values()))


def test_the_points_of_a_generation_share_one_seed_and_the_next_has_another():
    config = EvolutionConfig(seed=7)
    first = next_points(KNOBS, [], config)
    assert {point.seed for point in first} == {7}
    second = next_points(KNOBS, [float(n) for n in range(len(first))], config)
    assert {point.seed for point in second} == {8}


def test_a_search_that_is_cut_off_anywhere_goes_on_the_same():
    config, run = EvolutionConfig(runs=35, pairs=3), noisy(0.05)
    whole, losses = evolve(KNOBS, run, config)
    for cut in (0, 1, 5, 6, 13, 24, 25, 31, 34, len(losses)):
        again, same = evolve(KNOBS, run, config, losses[:cut])
        assert same == losses
        assert again == whole
        points = next_points(KNOBS, losses[:cut], config)
        assert bool(points) == (cut < len(losses))


def test_a_run_that_diverges_is_worse_than_all_others():
    """The half of the cube above share 0.5 diverges; the result stays out of it."""
    run = noisy(0.02)
    cliff = lambda settings, seed: (
        math.nan if settings["share"] > 0.5 else run(settings, seed)
    )
    result, _ = evolve(KNOBS, cliff, EvolutionConfig(runs=60, pairs=4))
    assert result.settings[result.chosen]["share"] <= 0.5
    assert math.isfinite(result.loss)


def test_where_everything_diverges_the_start_stays_and_the_loss_is_infinite():
    result, _ = evolve(KNOBS, lambda settings, seed: math.nan, EvolutionConfig())
    assert result.chosen == "start"
    assert result.loss == result.start_loss == math.inf
    assert math.isnan(result.error)


def test_a_start_that_can_not_be_beaten_is_kept():
    best = tuple(
        Knob(k.name, k.low, k.high, k.log, BEST[k.name]) for k in KNOBS
    )  # fmt: skip
    result, _ = evolve(best, noisy(0.0), EvolutionConfig(spread=0.5, shrink=1.0))
    assert result.chosen == "start"
    assert result.loss == result.start_loss
    assert result.error == 0


def test_settings_stay_in_their_bounds():
    config, losses, run = EvolutionConfig(spread=2.0), [], noisy(0.1)
    while points := next_points(KNOBS, losses, config):
        for point in points:
            for knob in KNOBS:
                assert knob.low <= point.settings[knob.name] <= knob.high
        losses += [run(point.settings, point.seed) for point in points]


def test_results_that_do_not_fit_the_plan_are_refused():
    config = EvolutionConfig()
    with pytest.raises(UserError, match="only 3 runs are made"):
        outcome(KNOBS, [1.0] * 3, config)
    with pytest.raises(UserError, match="41 losses of"):
        next_points(KNOBS, [1.0] * 41, config)
    with pytest.raises(UserError, match="no knob"):
        next_points((), [], config)
