"""Theta's update against optax.adamw and against formulas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from uets_jax.meta.outer import adam, updated
from uets_jax.meta.settings import MetaConfig

THETA = {"a": jnp.array([1.0, -2.0]), "b": jnp.asarray(0.5)}
ZEROS = jax.tree.map(jnp.zeros_like, THETA)
CONFIG = MetaConfig(updates=9, rate=0.1, last_rate=0.01, clip=1.0, average=0.9)

move = functools.partial(jax.jit, static_argnames="config")(updated)


def gradients(n, size=0.1):
    rng = np.random.default_rng(0)
    draw = lambda p: jnp.asarray(size * rng.normal(size=p.shape), jnp.float32)
    return [jax.tree.map(draw, THETA) for _ in range(n)]


def test_it_is_adamw_whose_rate_falls_by_a_cosine():
    """The decay is AdamW's own where the first theta is 0."""
    config = MetaConfig(updates=9, rate=0.1, last_rate=0.01, clip=1e9, decay=0.3)
    rate = optax.cosine_decay_schedule(0.1, 5, 0.1)
    theirs = optax.adamw(rate, b1=0.9, b2=0.99, weight_decay=0.3)
    ours, expected, mean = THETA, THETA, THETA
    opt, state = adam().init(ours), theirs.init(expected)
    for i, gradient in enumerate(gradients(5)):
        at, count = jnp.asarray(i / 5, jnp.float32), jnp.asarray(i)
        ours, mean, opt, norm = move(
            ours, ZEROS, mean, opt, gradient, at, count, config=config
        )
        np.testing.assert_allclose(norm, optax.tree.norm(gradient), rtol=1e-6)
        updates, state = theirs.update(gradient, state, expected)
        expected = optax.apply_updates(expected, updates)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), ours, expected
    )


def step(gradient, config=CONFIG, fraction=0.0, count=0, theta=THETA, start=THETA):
    at = jnp.asarray(fraction, jnp.float32)
    opt = adam().init(theta)
    return move(
        theta, start, ZEROS, opt, gradient, at, jnp.asarray(count), config=config
    )


def test_the_first_step_is_the_rate_and_the_last_one_the_last_rate():
    gradient = jax.tree.map(jnp.ones_like, THETA)
    for fraction, rate in ((0.0, 0.1), (0.5, 0.055), (1.0, 0.01), (2.0, 0.01)):
        theta, *_ = step(gradient, fraction=fraction)
        np.testing.assert_allclose(THETA["a"] - theta["a"], rate, rtol=1e-4)


def test_the_decay_is_towards_the_first_theta():
    config = MetaConfig(updates=9, rate=0.1, decay=0.5)
    theta, *_ = step(ZEROS, config)
    np.testing.assert_array_equal(theta["a"], THETA["a"])
    theta, *_ = step(ZEROS, config, start=jax.tree.map(lambda p: p + 1, THETA))
    np.testing.assert_allclose(theta["a"], THETA["a"] + 0.05, rtol=1e-6)


@pytest.mark.parametrize(("size", "seen"), [(0.3, 0.3), (30.0, 1.0)])
def test_a_gradient_is_clipped_by_its_whole_norm(size, seen):
    """Seen in Adam's second moment; what is returned is the norm before."""
    gradient = {"a": jnp.array([0.0, 0.8 * size]), "b": jnp.asarray(0.6 * size)}
    _, _, opt, norm = step(gradient)
    np.testing.assert_allclose(norm, size, rtol=1e-5)
    np.testing.assert_allclose(opt.nu["b"], 0.01 * (0.6 * seen) ** 2, rtol=1e-4)


def test_the_running_mean_begins_with_short_memory():
    for count, keep in ((0, 0.1), (5, 0.4), (10_000, 0.9)):
        theta, mean, *_ = step(ZEROS, count=count)
        np.testing.assert_allclose(mean["a"], (1 - keep) * theta["a"], rtol=1e-5)
