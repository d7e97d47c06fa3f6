"""Scores of whole runs; comparisons by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from uets_jax.meta.validate import WORST, Comparison, compare, scorer

SEEDS, ONE = jnp.arange(3), jnp.ones(())


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
    found, falls = scores(toy.start, SEEDS, ONE)
    assert (found < -0.2).all()
    assert len(np.unique(found)) == 3
    assert falls.shape == (3, 20)
    assert (falls[:, -1] < falls[:, 0]).all()
    np.testing.assert_array_equal(found, scores(toy.start, SEEDS, ONE)[0])


def test_a_factor_of_the_rate_is_a_larger_step(scores, toy):
    larger = {**toy.start, "log_step": jnp.log(2.0)}
    one, two = scores(larger, SEEDS, ONE), scores(toy.start, SEEDS, 2 * ONE)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_seeds_are_the_same_for_every_theta_and_in_every_order(scores, toy):
    """Without steps the score is 0; a seed's own doesn't hang on the others."""
    still = {**toy.start, "log_step": jnp.asarray(-99.0)}
    np.testing.assert_allclose(scores(still, SEEDS, ONE)[0], 0.0, atol=1e-6)
    found, _ = scores(toy.start, SEEDS, ONE)
    turned, _ = scores(toy.start, SEEDS[::-1], ONE)
    np.testing.assert_array_equal(found[::-1], turned)


def test_a_run_that_diverges_is_the_worst(bowl):
    score = jax.jit(scorer(constant("size"), bowl()))
    for size in (np.nan, 1e3, 1e30):
        found, _ = score({"size": jnp.asarray(size, jnp.float32)}, SEEDS, ONE)
        np.testing.assert_array_equal(found, WORST)


def test_comparison_by_hand():
    one = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 6.0]])
    two = np.array([[2.0, 2.0, 2.0], [1.0, 1.0, 1.0]])
    found = compare(one, two, np.array([2.0, 1.0]))
    # apart by (-1, 0, 1) / 2 and by (-1, -1, 3): variances 1 / 4 and 16 / 3
    assert found.mean == pytest.approx((0 + 1 / 3) / 2)
    assert found.error == pytest.approx((1 / 12 + 16 / 9) ** 0.5 / 2)
    assert not found.better


def test_comparison_is_paired():
    rng = np.random.default_rng(0)
    against = rng.normal(size=(2, 50))
    scores = against - 0.1 + 0.01 * rng.normal(size=(2, 50))
    found = compare(scores, against, np.ones(2))
    assert abs(found.mean + 0.1) < 0.005
    assert 0.0005 < found.error < 0.002
    assert found.better
    wider = compare(scores, against, np.array([0.5, 0.5]))
    assert wider.mean == pytest.approx(2 * found.mean)
    most = compare(against - 100, against, np.ones(2))
    assert (most.mean, most.error) == (-3.0, 0.0)


def test_better_is_by_more_than_two_errors():
    assert Comparison(-0.21, 0.1).better
    assert not Comparison(-0.19, 0.1).better
    assert not Comparison(0.5, 0.1).better
    assert not Comparison(0.0, 0.0).better
