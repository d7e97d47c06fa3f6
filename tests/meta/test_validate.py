"""Scores of whole runs; comparisons by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from uets_jax.meta.validate import WORST, Comparison, compare, scorer

SEEDS = jnp.arange(3)


def constant(value):
    """A rule whose updates are all theta's `value`."""

    def make(theta):
        def update(updates, state, params=None, **extra):
            return jax.tree.map(lambda g: g * 0 + theta[value], updates), state

        return optax.GradientTransformationExtraArgs(lambda p: (), update)

    return make


@pytest.fixture(scope="module")
def scores(toy, bowl):
    return jax.jit(scorer(toy.make, bowl()))


def test_a_run_that_learns_is_below_0_and_the_same_every_time(scores, toy):
    found = scores(toy.start, SEEDS)
    assert (found < -0.2).all()
    assert len(np.unique(found)) == 3
    np.testing.assert_array_equal(found, scores(toy.start, SEEDS))


def test_seeds_are_the_same_for_every_theta_and_in_every_order(scores, toy):
    """Without steps the score is 0; a seed's own doesn't hang on the others."""
    still = {**toy.start, "log_step": jnp.asarray(-99.0)}
    np.testing.assert_allclose(scores(still, SEEDS), 0.0, atol=1e-6)
    found = scores(toy.start, SEEDS)
    np.testing.assert_array_equal(found[::-1], scores(toy.start, SEEDS[::-1]))


def test_a_run_that_diverges_is_the_worst(bowl):
    score = jax.jit(scorer(constant("size"), bowl()))
    for size in (np.nan, 1e3, 1e30):
        np.testing.assert_array_equal(
            score({"size": jnp.asarray(size, jnp.float32)}, SEEDS), WORST
        )


def test_comparison_by_hand():
    one = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 6.0]])
    two = np.array([[2.0, 2.0, 2.0], [1.0, 1.0, 1.0]])
    found = compare(one, two)
    assert found.mean == pytest.approx(0.5)
    # variances of (-1, 0, 1) and (-1, -1, 5) are 1 and 12
    assert found.error == pytest.approx((1 / 3 + 12 / 3) ** 0.5 / 2)
    assert not found.better


def test_comparison_is_paired():
    rng = np.random.default_rng(0)
    against = rng.normal(size=(2, 50))
    found = compare(against - 0.1 + 0.01 * rng.normal(size=(2, 50)), against)
    assert abs(found.mean + 0.1) < 0.005
    assert 0.0005 < found.error < 0.002
    assert found.better


def test_better_is_by_more_than_two_errors():
    assert Comparison(-0.21, 0.1).better
    assert not Comparison(-0.19, 0.1).better
    assert not Comparison(0.5, 0.1).better
    assert not Comparison(0.0, 0.0).better
