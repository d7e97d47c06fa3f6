"""Directions, utilities, and the step of the mean."""

import math

import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.meta.strategy import EvolutionConfig, generation, mean_after, utilities


def test_the_points_are_antithetic_and_orthogonal_around_the_mean():
    config, mean = EvolutionConfig(runs=40, pairs=5, spread=0.1), np.full(3, 0.5)
    places = generation(mean, 0, config)
    assert places.shape == (10, 3)
    apart = places - mean
    np.testing.assert_allclose(apart[::2], -apart[1::2], atol=1e-12)
    gram = apart[:6:2] @ apart[:6:2].T
    np.testing.assert_allclose(gram, 0.01 * 3 * np.eye(3), atol=1e-12)
    nearer = generation(mean, 1, config) - mean
    np.testing.assert_allclose(np.linalg.norm(nearer[0]), 0.075 * 3**0.5)
    np.testing.assert_array_equal(places, generation(mean, 0, config))
    assert generation(np.ones(3), 0, config).max() == 1.0


def test_rank_utilities_are_those_of_the_formula():
    got = utilities(np.array([3.0, 1.0, 2.0, 9.0]))
    raw = np.array([math.log(3), math.log(3) - math.log(2), 0, 0])
    expected = raw / raw.sum() - 0.25
    np.testing.assert_allclose(
        got, [expected[2], expected[0], expected[1], expected[3]]
    )


@pytest.mark.parametrize("shaping", ["rank", "plain"])
def test_utilities(shaping):
    losses = np.array([4.0, 1.0, 2.0, 3.0])
    got = utilities(losses, shaping)
    assert got.sum() == pytest.approx(0)
    assert got.argmax() == 1
    np.testing.assert_allclose(utilities(5 * losses - 3, shaping), got)
    worse = utilities(np.array([np.nan, 1.0, np.inf, 2.0]), shaping)
    assert worse[0] == worse[2] == worse.min()
    assert not utilities(np.full(4, np.nan), shaping).any()
    np.testing.assert_allclose(utilities(np.full(4, 7.0), shaping), 0, atol=1e-15)


@pytest.mark.parametrize("shaping", ["rank", "plain"])
def test_the_mean_goes_down_a_slope_and_stays_in_the_cube(shaping):
    config = EvolutionConfig(runs=30, pairs=5, shaping=shaping)
    start, slope = np.full(2, 0.5), np.array([1.0, -1.0])
    losses = list(generation(start, 0, config) @ slope)
    moved = mean_after(start, losses, config)
    assert moved[0] < 0.4
    assert moved[1] > 0.6
    losses += list(generation(moved, 1, config) @ slope)
    twice = mean_after(start, losses, config)
    assert (twice >= 0).all()
    assert (twice <= 1).all()
    assert twice @ slope < moved @ slope
    np.testing.assert_array_equal(mean_after(start, losses[:-1], config), moved)


@pytest.mark.parametrize("field", ["pairs", "check", "spread", "shrink", "rate"])
def test_a_number_that_is_none_is_refused(field):
    with pytest.raises(UserError, match=f"evolution.{field}: must be above 0"):
        EvolutionConfig(**{field: type(getattr(EvolutionConfig, field))(0)})


def test_a_budget_below_one_generation_is_refused():
    with pytest.raises(UserError, match=r"19 is less than one .* checks, 20"):
        EvolutionConfig(runs=19, pairs=5, check=2)
    with pytest.raises(UserError, match=r"'rank' or 'plain', not 'ranks'"):
        EvolutionConfig(shaping="ranks")
