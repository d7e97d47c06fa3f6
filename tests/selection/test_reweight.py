"""Weighted estimates are those of the pool, over many draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.selection import reweight

N, B, DRAWS = 24, 6, 20_000


@pytest.fixture(scope="module")
def pool():
    """Scores and losses that go together, so that an unweighted mean is wrong."""
    rng = np.random.default_rng(0)
    losses = jnp.asarray(rng.uniform(1, 5, N), jnp.float32)
    return losses + jnp.asarray(rng.normal(size=N) / 2, jnp.float32), losses


def replaced(key, scores, losses):
    """One draw with replacement: weights and losses of its rows."""
    chances = reweight.probabilities(scores)
    rows = jax.random.choice(key, N, (B,), p=chances)
    return reweight.importance_weights(chances[rows], N), losses[rows]


def gumbel(key, scores, losses):
    """One draw without replacement, by Gumbel top-k and its threshold."""
    log_p = jnp.log(reweight.probabilities(scores))
    keys, rows = jax.lax.top_k(log_p + jax.random.gumbel(key, (N,)), B + 1)
    weights = reweight.threshold_weights(log_p[rows[:B]], keys[B], N)
    return weights, losses[rows[:B]]


@pytest.mark.parametrize("draw", [replaced, gumbel])
def test_the_weighted_mean_is_the_mean_of_the_pool(draw, pool):
    keys = jax.random.split(jax.random.key(0), DRAWS)
    weights, losses = jax.jit(jax.vmap(draw, (0, None, None)))(keys, *pool)
    full = float(pool[1].mean())
    estimates = np.asarray((weights * losses).mean(1))
    error = estimates.std() / DRAWS**0.5
    assert abs(estimates.mean() - full) < 4 * error
    assert error < 0.01
    bias = np.asarray(losses).mean() - full  # what the weights undo
    assert bias > 0.3
    per_draw = np.asarray(weights).mean(1)
    assert abs(per_draw.mean() - 1) < 4 * per_draw.std() / DRAWS**0.5
    own = jax.vmap(reweight.normalised)(weights)
    np.testing.assert_allclose(own.mean(1), 1.0, rtol=1e-5)
    steady = np.asarray((own * losses).mean(1))
    assert abs(steady.mean() - full) < bias / 2  # of order 1 / B, and B is 6


def test_the_chances_add_up_and_have_a_floor():
    scores = jnp.array([0.0, 3.0, -jnp.inf, 50.0])
    chances = reweight.probabilities(scores, 1.0, 0.2)
    np.testing.assert_allclose(chances.sum(), 1.0, rtol=1e-6)
    assert float(chances.min()) == pytest.approx(0.05)
    assert float(reweight.importance_weights(chances, 4).max()) <= 1 / 0.2 + 1e-4
    exact = np.exp([0.0, 3.0, 1.0]) / np.exp([0.0, 3.0, 1.0]).sum()
    got = reweight.probabilities(jnp.array([0.0, 6.0, 2.0]), 2.0, 0.0)
    np.testing.assert_allclose(got, exact, rtol=1e-6)


def test_a_flat_draw_weighs_nothing():
    chances = reweight.probabilities(jnp.zeros(N))
    np.testing.assert_allclose(
        reweight.importance_weights(chances, N), np.ones(N), rtol=1e-6
    )


def test_threshold_weights_do_not_depend_on_the_scale_of_the_chances():
    log_p, threshold = jnp.array([-1.0, -2.0]), jnp.array(-1.5)
    shifted = reweight.threshold_weights(log_p + 3, threshold + 3, 10)
    np.testing.assert_allclose(
        reweight.threshold_weights(log_p, threshold, 10), shifted, rtol=1e-5
    )
    whole = reweight.threshold_weights(log_p, jnp.array(-jnp.inf), 2)
    np.testing.assert_allclose(whole, [1.0, 1.0])


def test_a_clipped_weight_is_cut_and_the_mean_stays_one():
    weights = jnp.array([1.0, 1.0, 1.0, 97.0])
    got = reweight.normalised(weights, 2.0)
    np.testing.assert_allclose(got.mean(), 1.0, rtol=1e-6)
    np.testing.assert_allclose(got[:3], np.full(3, got[0]))
    assert float(got[3] / got[0]) == pytest.approx(2.0 / 0.04)
    free = reweight.normalised(weights, jnp.inf)
    np.testing.assert_allclose(free, weights / 25, rtol=1e-6)


def test_effective_rows_are_all_of_equal_weights_and_one_of_a_single_weight():
    assert float(reweight.effective_rows(jnp.ones(8))) == 8
    assert float(reweight.effective_rows(jnp.eye(8)[0])) == 1
