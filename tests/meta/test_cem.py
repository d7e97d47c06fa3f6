import functools

import jax
import jax.numpy as jnp
import numpy as np

from uets_jax.meta.cem import cem

TARGET = jnp.array([1.0, -2.0, 0.5])
START = jnp.zeros(3), 2 * jnp.ones(3)


def quadratic(x, key):
    return -jnp.square(x - TARGET).sum()


@functools.partial(jax.jit, static_argnums=(0, 2, 3, 4))
def search(objective, key, population=64, elites=8, generations=30):
    return cem(objective, *START, population, elites, generations, key)


def test_finds_the_optimum_of_a_quadratic(key):
    found = search(quadratic, key)
    np.testing.assert_allclose(found.mean, TARGET, atol=1e-3)
    np.testing.assert_allclose(found.best, TARGET, atol=1e-3)
    assert (found.std < 1e-2).all()
    assert found.history.shape == (30,)
    assert found.history[-1] > found.history[0]


def test_noise_that_all_candidates_share_changes_nothing(key):
    noisy = lambda x, key: quadratic(x, key) + 100 * jax.random.normal(key)
    found, plain = search(noisy, key), search(quadratic, jax.random.key(0))
    np.testing.assert_allclose(found.mean, plain.mean, atol=1e-3)


def test_a_candidate_that_is_not_finite_is_never_an_elite(key):
    half = lambda x, key: jnp.where(x[0] > 1.0, jnp.nan, quadratic(x, key))
    found = search(half, key)
    assert jnp.isfinite(found.history).all()
    assert found.best[0] <= 1.0
    np.testing.assert_allclose(found.best, TARGET, atol=0.05)


def test_the_first_step_is_the_smoothed_fit_to_the_elites(key):
    found = cem(quadratic, *START, 16, 4, 1, key)
    search, _ = jax.random.split(jax.random.key(0))
    draw, noise = jax.random.split(jax.random.split(search, 1)[0])
    drawn = 2 * jax.random.normal(draw, (16, 3))
    scores = jax.vmap(quadratic, (0, None))(drawn, noise)
    best = drawn[jnp.argsort(-scores)[:4]]
    np.testing.assert_allclose(found.mean, 0.7 * best.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.std, 0.7 * best.std(0) + 0.3 * 2, rtol=1e-5)
