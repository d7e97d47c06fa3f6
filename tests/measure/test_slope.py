import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.measure import slope


@functools.partial(jax.jit, static_argnames=("window", "decay"))
def follow(flops, losses, window=1.0, decay=1.0):
    """The state after a whole curve."""
    step = lambda s, p: (slope.update(s, *p, window, decay), None)
    return jax.lax.scan(step, slope.init(), (flops, losses))[0]


def closed_form(flops, losses, window=1.0, decay=1.0):
    """Slope and error of weighted least squares, with matrices in float64.

    b = M y with M = (X'WX)^-1 X'W, Cov(b) = s^2 M M', and the residuals r = (I - H) y
    with H = X M have E[r'Wr] = s^2 tr((I - H)' W (I - H)).
    """
    x, y = np.log(flops), np.asarray(losses, np.float64)
    age = np.arange(len(x))[::-1]
    w = np.exp((x - x[-1]) / window) * decay**age
    design = np.stack([np.ones_like(x), x - x[-1]], 1)
    solve = np.linalg.solve(design.T * w @ design, design.T * w)
    rest = np.eye(len(x)) - design @ solve
    r = rest @ y
    variance = r @ (w * r) / np.trace(rest.T * w @ rest)
    return (solve @ y)[1], np.sqrt(variance * (solve @ solve.T)[1, 1])


def curve(n=400, seed=0, noise=0.05, per_step=3e9, exponent=0.1):
    """A power law in FLOPs with noise."""
    flops = per_step * np.arange(1, n + 1)
    clean = 1.5 + 4 * (flops / 1e9) ** -exponent
    rng = np.random.default_rng(seed)
    return flops, clean + noise * rng.normal(size=n)


@pytest.mark.parametrize(
    ("window", "decay"), [(1.0, 1.0), (0.2, 1.0), (3.0, 0.98), (1.0, 0.9)]
)
def test_equals_weighted_least_squares(window, decay):
    flops, losses = curve()
    found = slope.read(follow(jnp.float32(flops), jnp.float32(losses), window, decay))
    exact = closed_form(flops, losses, window, decay)
    np.testing.assert_allclose(found, exact, rtol=2e-3)


def test_equal_weights_are_polyfit():
    flops, losses = curve(100)
    found = slope.read(follow(jnp.float32(flops), jnp.float32(losses), 1e9))
    fit, covariance = np.polyfit(np.log(flops), losses, 1, cov=True)
    expected = fit[0], np.sqrt(covariance[0, 0])
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_is_exact_far_from_the_origin():
    """1e19 FLOPs and steps of 1e-5 of them: x moves by little on a large offset."""
    flops, losses = curve(2000, per_step=1e14)
    found = slope.read(follow(jnp.float32(1e19 + flops), jnp.float32(losses), 0.01))
    exact = closed_form(np.float32(1e19 + flops).astype(float), losses, 0.01)
    np.testing.assert_allclose(found, exact, rtol=2e-3)


def test_the_error_covers_the_truth_as_often_as_it_says():
    """A line in ln C, 500 draws: 68 % within one error, 95 % within two."""
    flops = jnp.float32(1e9 * np.arange(1, 301))
    noise = 0.1 * jax.random.normal(jax.random.key(1), (500, 300))
    losses = (5.0 - 0.3 * jnp.log(flops))[None, :] + noise
    found = slope.read(jax.vmap(follow, (None, 0))(flops, losses))
    z = np.abs((found.slope + 0.3) / found.error)
    assert abs((z < 1).mean() - 0.68) < 0.06
    assert abs((z < 2).mean() - 0.95) < 0.03


def test_follows_the_slope_of_a_power_law():
    """dL / d ln C = -a A C^-a, as it was when C was about e^(2 / r) times smaller."""
    flops, losses = curve(3000, noise=0.02)
    found = slope.read(follow(jnp.float32(flops), jnp.float32(losses)))
    true = -0.1 * 4 * (flops[-1] / 1e9) ** -0.1
    lagged = true * (1 - 0.1 / 2) ** -2
    assert abs(found.slope - lagged) < 3 * found.error
    assert found.slope < 0 < found.error


def test_forgets_what_was_before():
    flops, losses = curve(1000, noise=0.0)
    bent = np.where(np.arange(1000) < 100, losses + 5.0, 3.0)
    found = slope.read(follow(jnp.float32(flops), jnp.float32(bent), 0.1))
    np.testing.assert_allclose(found.slope, 0, atol=1e-3)


def test_few_points_are_no_evidence():
    state = slope.init()
    for n, (flops, loss) in enumerate([(1e9, 5.0), (2e9, 4.0), (4e9, 3.5)]):
        chex.assert_tree_all_finite(slope.read(state).slope)
        assert slope.read(state).error == jnp.inf, n
        state = slope.update(state, flops, loss)
    assert 0 < slope.read(state).error < jnp.inf


def test_points_at_the_same_flops_have_no_slope():
    state = follow(jnp.full(5, 1e9), jnp.arange(5.0))
    assert slope.read(state) == (0.0, jnp.inf)


@pytest.mark.parametrize(
    ("flops", "loss"), [(1e12, np.nan), (1e12, np.inf), (0.0, 1.0), (np.nan, 1.0)]
)
def test_what_is_not_finite_changes_nothing(flops, loss):
    state = follow(*map(jnp.float32, curve(10)))
    chex.assert_trees_all_equal(slope.update(state, flops, loss), state)


def test_the_state_is_of_constant_size_and_the_host_agrees_with_jit():
    flops, losses = curve(20)
    state = slope.init()
    for f, y in zip(flops, losses, strict=True):
        after = slope.update(state, float(f), float(y))
        chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
        state = after
    chex.assert_trees_all_close(
        state, follow(jnp.float32(flops), jnp.float32(losses)), rtol=1e-4, atol=1e-5
    )
