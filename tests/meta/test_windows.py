"""A window of episodes: keys as integers, first states, replacement, metrics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.meta.windows import (
    Problem,
    first_carry,
    keyless,
    replaced,
    unroll,
    where_done,
    window_metrics,
)

WINDOW, STEPS = 3, 12


def keyed():
    """An episode with a key in it; a step adds theta, and its value is the sum."""

    def step(theta, s, episode, t):
        s = s + theta
        return s, s + 0.0 * jax.random.normal(jax.random.fold_in(episode["key"], t))

    return Problem(
        lambda key: {"key": key, "shift": jnp.ones(2)},
        lambda theta, episode: episode["shift"].sum(),
        step,
        lambda episode: jnp.asarray(STEPS, jnp.int32),
    )


@pytest.fixture(scope="module")
def problem():
    return keyless(keyed())


def test_a_keyless_episode_has_no_keys_and_the_same_values(problem):
    key, theta, t = jax.random.key(3), jnp.asarray(0.5), jnp.asarray(2)
    bare, whole = problem.begin(key), keyed().begin(jax.random.key(3))
    assert bare["key"].dtype == jnp.uint32
    np.testing.assert_array_equal(bare["key"], jax.random.key_data(key))
    np.testing.assert_array_equal(bare["shift"], whole["shift"])
    first = problem.start(theta, bare)
    np.testing.assert_array_equal(first, keyed().start(theta, whole))
    found = problem.step(theta, first, bare, t)
    np.testing.assert_array_equal(found, keyed().step(theta, first, whole, t))
    assert int(problem.horizon(bare)) == STEPS


def test_first_episodes_end_at_any_of_their_windows(problem):
    carry = first_carry(problem, 256, WINDOW, jnp.asarray(0.5), jax.random.key(0))
    ends, counts = np.unique(carry.end, return_counts=True)
    np.testing.assert_array_equal(ends, [3, 6, 9, 12])
    assert counts.min() > 40
    np.testing.assert_array_equal(carry.step, 0)
    np.testing.assert_array_equal(carry.inner, 0.0)
    assert len(np.unique(carry.episode["key"], axis=0)) == 256


@pytest.mark.parametrize("remat", [False, True])
def test_a_window_begins_at_step_0_and_goes_on_elsewhere(remat, problem):
    episode, theta = problem.begin(jax.random.key(0)), jnp.asarray(0.5)
    go = lambda first: unroll(
        problem, WINDOW, theta, jnp.asarray(7.0), episode, jnp.asarray(first), remat
    )
    inner, mean, broken = go(0)  # from 2
    assert (float(inner), float(mean), float(broken)) == (3.5, 3.0, 0.0)
    inner, mean, _ = go(3)  # from 7
    assert (float(inner), float(mean)) == (8.5, 8.0)


def test_no_gradient_comes_from_before_a_window(problem):
    episode = problem.begin(jax.random.key(0))

    def mean(theta, first):
        inner = 7.0 * theta
        return unroll(problem, WINDOW, theta, inner, episode, jnp.asarray(first))[1]

    for first in (0, 3):
        np.testing.assert_allclose(jax.grad(mean)(0.5, first), 2.0)  # (1 + 2 + 3) / 3


def test_values_that_are_not_finite_count_as_the_worst(problem):
    def step(theta, s, episode, t):
        return s, jnp.where(t % 3 == 0, jnp.nan, 2.0)

    bad = problem._replace(step=step, worst=5.0)
    episode = problem.begin(jax.random.key(0))
    _, mean, broken = unroll(
        bad, WINDOW, jnp.ones(()), jnp.ones(()), episode, jnp.asarray(0)
    )
    np.testing.assert_allclose([mean, broken], [3.0, 1 / 3], rtol=1e-6)


def test_only_episodes_that_are_done_are_replaced(problem):
    carry = first_carry(problem, 3, WINDOW, jnp.asarray(0.5), jax.random.key(0))
    carry = carry._replace(step=jnp.array([0, 3, 6]), end=jnp.array([3, 9, 9]))
    done = carry.step + WINDOW >= carry.end
    np.testing.assert_array_equal(done, [True, False, True])
    after = replaced(problem, WINDOW, carry, done, jax.random.key(1))
    np.testing.assert_array_equal(after.step, [0, 6, 0])
    np.testing.assert_array_equal(after.end, [STEPS, 9, STEPS])
    changed = (after.episode["key"] != carry.episode["key"]).any(1)
    np.testing.assert_array_equal(changed, done)


def test_where_done_picks_whole_episodes():
    old = {"a": jnp.zeros((3, 2)), "b": jnp.zeros(3)}
    new = jax.tree.map(jnp.ones_like, old)
    picked = where_done(jnp.array([True, False, True]), new, old)
    np.testing.assert_array_equal(picked["a"], [[1, 1], [0, 0], [1, 1]])
    np.testing.assert_array_equal(picked["b"], [1, 0, 1])


def test_metrics_are_means_counts_and_a_deviation():
    found = window_metrics(
        jnp.array([1.0, 3.0]),
        jnp.array([True, False]),
        jnp.array([0.5, 0.0]),
        jnp.array([2.0, 6.0]),
    )
    plain = {name: float(value) for name, value in found.items()}
    assert plain == {"value": 2.0, "finished": 1.0, "broken": 0.25, "spread": 2.0}
