"""Estimators against closed forms: means, biases, shared noise, devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from uets_jax.errors import UserError
from uets_jax.meta.estimators import compile_window, estimator, sizes_like
from uets_jax.meta.windows import Problem

STEPS, WINDOW = 18, 3


def influence(n=12, positive=2):
    """Influence balancing: theta helps `positive` states at once, hurts the rest later.

    Source: Vicol et al. 2021, section 5.1; the value is (s_0 - 1)^2 after each step.
    """
    matrix = 0.5 * jnp.eye(n) + 0.5 * jnp.eye(n, k=1)
    sign = jnp.where(jnp.arange(n) < positive, 1.0, -1.0)

    def step(theta, s, episode, t):
        s = matrix @ s + theta * sign
        return s, 0.1 * jnp.square(s[0] - 1.0)

    return Problem(
        lambda key: (),
        lambda theta, episode: jnp.ones(n),
        step,
        lambda episode: jnp.asarray(STEPS, jnp.int32),
    )


def decay():
    """s <- (1 - theta c) s, each episode with its own c, value s^2."""

    def step(theta, s, c, t):
        s = s * (1 - theta * c)
        return s, jnp.square(s)

    return Problem(
        lambda key: jax.random.uniform(key, (), minval=0.5, maxval=1.0),
        lambda theta, c: jnp.ones(()),
        step,
        lambda c: jnp.asarray(STEPS, jnp.int32),
    )


def total(problem, theta, key):
    """The mean value over a whole episode."""
    episode = problem.begin(key)
    inner, values = problem.start(theta, episode), []
    for t in range(STEPS):
        inner, value = problem.step(theta, inner, episode, t)
        values.append(value)
    return jnp.stack(values).mean()


def mean_gradient(name, problem, theta, episodes=2048, sigma=0.1, rounds=1):
    """Mean over all windows, and its standard error."""
    made = estimator(name, problem, episodes, WINDOW)
    step, sizes = jax.jit(made.window), sizes_like(theta, sigma)
    carry, windows = made.init(theta, jax.random.key(1)), STEPS // WINDOW
    seen = []
    for i in range(windows * (rounds + 1)):  # the first ones end early
        gradient, carry, _ = step(theta, carry, jax.random.key(10 + i), sizes)
        seen.append(float(gradient))
    kept = np.array(seen[windows:])
    # a window's gradients share noise: rounds of whole episodes are independent
    by_round = kept.reshape(rounds, windows).mean(1)
    return by_round.mean(), by_round.std(ddof=1) / rounds**0.5


@pytest.mark.parametrize(("name", "sigma"), [("nres", 0.1), ("pes", 0.02)])
def test_mean_is_the_gradient_of_the_smoothed_objective(name, sigma):
    """Against Gauss-Hermite quadrature and a central difference.

    PES smooths by a noise per window, another objective; a small sigma hides that.
    """
    theta, problem = jnp.asarray(0.4), decay()
    places, weights = np.polynomial.hermite_e.hermegauss(15)

    @jax.jit
    def objective(x):
        keys = jax.random.split(jax.random.key(3), 4096)
        return jax.vmap(lambda k: total(problem, x, k))(keys).mean()

    def smoothed(x):
        values = [float(objective(x + sigma * float(z))) for z in places]
        return float(np.dot(weights, values)) / weights.sum()

    exact = (smoothed(theta + 0.01) - smoothed(theta - 0.01)) / 0.02
    mean, error = mean_gradient(name, problem, theta, 2048, sigma, rounds=12)
    assert error < 0.05 * abs(exact)
    assert abs(mean - exact) < 3.5 * error + 0.01 * abs(exact)


@pytest.mark.parametrize("name", ["nres", "pes"])
def test_unbiased_where_truncation_has_the_wrong_sign(name):
    problem, theta = influence(), jnp.asarray(0.3)
    exact = float(jax.grad(functools.partial(total, problem))(theta, jax.random.key(0)))
    mean, error = mean_gradient(name, problem, theta, 1024, 0.1, rounds=12)
    assert abs(mean - exact) < 3.5 * error
    assert error < 0.2 * abs(exact)
    short, _ = mean_gradient("tbptt", problem, theta, 2, rounds=2)
    assert short * exact < 0


def test_whole_episode_backpropagation_is_exact():
    problem, theta = decay(), jnp.asarray(0.4)
    made = estimator("tbptt", problem, 8, STEPS)
    carry = made.init(theta, jax.random.key(0))
    given = (theta, carry, jax.random.key(1), sizes_like(theta, 1.0))
    gradient, _, _ = jax.jit(made.window)(*given)

    def mean(x):
        start = jax.vmap(lambda c: _value(problem, x, c))
        return start(carry.episode).mean()

    np.testing.assert_allclose(gradient, jax.grad(mean)(theta), rtol=1e-5)


def _value(problem, theta, episode):
    inner, values = problem.start(theta, episode), []
    for t in range(STEPS):
        inner, value = problem.step(theta, inner, episode, t)
        values.append(value)
    return jnp.stack(values).mean()


def test_signs_share_noise_and_data_bit_for_bit():
    """With theta at 0 and steps even in theta, states of both signs are the same."""

    def step(theta, s, key, t):
        noise = jax.random.normal(jax.random.fold_in(key, t), ())
        return s + noise * jnp.square(theta), s

    problem = Problem(
        lambda key: key,
        lambda theta, key: jax.random.normal(jax.random.fold_in(key, 99), ()),
        step,
        lambda key: jnp.asarray(STEPS, jnp.int32),
    )
    for name in ("nres", "pes"):
        made, sizes = estimator(name, problem, 16, WINDOW), jnp.asarray(0.5)
        carry = made.init(jnp.zeros(()), jax.random.key(0))
        for i in range(6):
            gradient, carry, metrics = jax.jit(made.window)(
                jnp.zeros(()), carry, jax.random.key(1 + i), sizes
            )
            np.testing.assert_array_equal(carry.inner[:, 0], carry.inner[:, 1])
            assert abs(float(gradient)) < 1e-6
            assert float(metrics["spread"]) < 1e-6
        assert len(np.unique(carry.inner[:, 0])) == 16


@pytest.mark.parametrize("name", ["nres", "pes", "tbptt"])
def test_a_leaf_of_size_0_is_not_learned(name):
    problem = decay()
    both = problem._replace(
        step=lambda theta, *rest: problem.step(theta["a"] * theta["b"], *rest),
    )
    theta = {"a": jnp.asarray(0.4), "b": jnp.ones(())}
    sizes = sizes_like(theta, 0.1, {"a": True, "b": False})
    made = estimator(name, both, 64, WINDOW)

    def gradient(theta):
        carry = made.init(theta, jax.random.key(0))
        return jax.jit(made.window)(theta, carry, jax.random.key(1), sizes)[0]

    found = gradient(theta)
    assert float(found["b"]) == 0
    assert float(found["a"]) != 0
    other = gradient({**theta, "b": jnp.asarray(2.0)})
    assert float(other["a"]) != float(found["a"])  # b is used all the same


def test_part_of_a_leaf_can_be_learned():
    problem = decay()
    first = problem._replace(
        step=lambda theta, *rest: problem.step(theta.mean(), *rest),
    )
    theta, mask = jnp.asarray([0.4, 0.4, 0.4]), jnp.asarray([True, False, True])
    made = estimator("nres", first, 64, WINDOW)
    carry = made.init(theta, jax.random.key(0))
    given = (theta, carry, jax.random.key(1), sizes_like(theta, 0.1, mask))
    found = jax.jit(made.window)(*given)[0]
    np.testing.assert_array_equal(found != 0, mask)


def test_episodes_are_out_of_step_and_replaced():
    made = estimator("nres", decay(), 64, WINDOW)
    carry, finished = made.init(jnp.asarray(0.4), jax.random.key(0)), 0
    for i in range(12):
        before = carry
        _, carry, metrics = jax.jit(made.window)(
            jnp.asarray(0.4), carry, jax.random.key(1 + i), jnp.asarray(0.02)
        )
        finished += int(metrics["finished"])
        fresh = np.asarray(carry.step) == 0
        changed = np.asarray(before.episode) != np.asarray(carry.episode)
        noise = np.asarray(before.noise) != np.asarray(carry.noise)
        np.testing.assert_array_equal(fresh, changed)
        np.testing.assert_array_equal(fresh, noise)
        assert fresh.sum() == int(metrics["finished"])
    assert len(np.unique(carry.step)) == STEPS // WINDOW
    assert finished > 64


@pytest.mark.parametrize("name", ["nres", "pes", "tbptt"])
def test_a_loss_that_is_not_finite_is_the_worst_and_no_nan(name):
    def step(theta, s, episode, t):
        s = s * (1 + 1e18 * theta)
        return s, s

    problem = Problem(
        lambda key: (),
        lambda theta, episode: jnp.ones(()),
        step,
        lambda episode: jnp.asarray(STEPS, jnp.int32),
        worst=7.0,
    )
    made, sizes = estimator(name, problem, 4, STEPS), jnp.asarray(0.1)
    theta = jnp.ones(())
    carry = made.init(theta, jax.random.key(0))
    given = (theta, carry, jax.random.key(1), sizes)
    gradient, carry, metrics = jax.jit(made.window)(*given)
    assert np.isfinite(gradient)
    assert float(metrics["broken"]) > 0.5
    assert np.isfinite(metrics["value"])


@pytest.mark.parametrize("name", ["nres", "pes", "tbptt"])
def test_eight_devices_agree_with_one(name):
    theta = {"a": jnp.asarray(0.4), "b": jnp.ones(3)}
    problem = decay()
    step = problem.step
    problem = problem._replace(
        start=lambda theta, c: jnp.ones(()),
        step=lambda theta, s, c, t: step(theta["a"] * theta["b"].mean(), s, c, t),
    )
    made = estimator(name, problem, 16, WINDOW)
    mesh = jax.make_mesh((8,), ("pairs",), axis_types=(AxisType.Auto,))
    results, sizes = [], sizes_like(theta, 0.02)
    for where in (None, mesh):
        window = compile_window(made, 16, where)
        carry = made.init(theta, jax.random.key(0))
        if where is not None:
            split = jax.NamedSharding(where, jax.P("pairs"))
            carry = jax.device_put(carry, split)
        for i in range(5):
            gradient, carry, _ = window(theta, carry, jax.random.key(i), sizes)
        if where is not None:
            assert len(carry.inner.sharding.device_set) == 8
        results.append(jax.tree.map(np.asarray, (gradient, carry.inner)))
    for one, other in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_bad_input_is_named():
    with pytest.raises(UserError, match="choose from nres"):
        estimator("es", decay(), 4, 3)
    with pytest.raises(UserError, match=r"estimator\.sigma"):
        sizes_like(jnp.zeros(3), 0.0)
    with pytest.raises(UserError, match="no leaf of theta"):
        sizes_like(jnp.zeros(3), 0.1, False)
    mesh = jax.make_mesh((8,), ("pairs",), axis_types=(AxisType.Auto,))
    with pytest.raises(UserError, match="split over 8"):
        compile_window(estimator("nres", decay(), 12, 3), 12, mesh)
