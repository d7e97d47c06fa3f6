"""Means against their sums over rows; the gap of known curves; its error by chance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.curriculum.progress import learning_progress, read

FAST, SLOW = 5.0, 20.0


def run(part, bins, losses):
    """Feeds [T, B] rows; the last call's output."""
    step = lambda s, x: part.apply(s, *x)[::-1]
    state, out = jax.jit(lambda s, x: jax.lax.scan(step, s, x))(
        part.init({}), (jnp.asarray(bins), jnp.asarray(losses, jnp.float32))
    )
    return jax.tree.map(lambda x: np.asarray(x[-1]), out), state


def test_means_of_single_rows_are_debiased_exponential_ones():
    losses = np.random.default_rng(0).uniform(1, 2, (40, 1))
    seen, _ = run(learning_progress(2, FAST, SLOW), np.ones((40, 1), int), losses)
    ages = np.arange(40)[::-1]
    fast, slow = (
        np.average(losses[:, 0], weights=np.exp(-ages / t)) for t in (FAST, SLOW)
    )
    np.testing.assert_allclose(seen.loss, [0, fast], rtol=1e-5)
    np.testing.assert_allclose(seen.gap, [0, slow - fast], rtol=1e-3, atol=1e-6)


def test_a_batch_weighs_as_many_rows_one_after_the_other():
    part = learning_progress(1, FAST, SLOW)
    _, one = run(part, np.zeros((6, 1), int), np.full((6, 1), 3.0))
    _, six = run(part, np.zeros((1, 6), int), np.full((1, 6), 3.0))
    np.testing.assert_allclose(one.weight, six.weight, rtol=1e-5)
    np.testing.assert_allclose(one.loss, six.loss, rtol=1e-5)


def test_a_linear_fall_has_the_gap_of_the_two_memories():
    losses = 100 - 0.1 * np.arange(400)[:, None]
    seen, _ = run(learning_progress(1, FAST, SLOW), np.zeros((400, 1), int), losses)
    lag = lambda t: 1 / (np.exp(1 / t) - 1)  # mean age of exponential weights
    assert seen.gap[0] == pytest.approx(0.1 * (lag(SLOW) - lag(FAST)), rel=1e-3)


def test_the_error_is_the_scatter_of_the_fast_mean():
    losses = np.random.default_rng(0).normal(5, 1, (300, 64))
    bins = np.tile(np.arange(64), (300, 1))  # 64 independent copies
    seen, _ = run(learning_progress(64, FAST, 200.0), bins, losses)
    assert seen.error.mean() == pytest.approx((seen.loss - 5).std(), rel=0.15)
    assert np.mean(np.abs(seen.gap) > 3 * seen.error) < 0.05


def test_a_bin_without_rows_stays_as_it_is():
    part = learning_progress(3, FAST, SLOW)
    _, state = part.apply(part.init({}), jnp.array([0, 2]), jnp.array([1.0, 4.0]))
    seen, after = part.apply(state, jnp.array([0, 0]), jnp.array([2.0, 3.0]))
    np.testing.assert_array_equal(after.loss[:, 2], state.loss[:, 2])
    np.testing.assert_array_equal(seen.loss[1], 0.0)
    assert np.isfinite(np.asarray(read(part.init({}), FAST))).all()
