"""The objective is what the docstring says, and 0 for the nominal rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.meta.augment import PLAIN
from uets_jax.meta.episode import (
    Reference,
    doubling,
    mean_curve,
    problem,
    reference,
    run,
)


@pytest.fixture
def family(bowl):
    return bowl(horizon=40)


def test_values_add_up_to_the_objective(toy, family):
    """0.2 mean + 0.8 mean over the last window, each clipped, by hand."""
    against = Reference(jnp.linspace(0, -1.0, 33), jnp.asarray(1.0))
    steps = problem(toy.make, family, PLAIN, 10, against)
    parts = run(toy.make, family, PLAIN, 10)

    @jax.jit
    def both(key):
        episode = parts.begin(key)

        def values(f):
            body = lambda inner, t: f(toy.start, inner, episode, t)
            first = parts.start(toy.start, episode)
            return jax.lax.scan(body, first, jnp.arange(40))[1]

        return values(parts.advance), values(steps.step)

    falls, got = both(jax.random.key(0))
    c = np.clip(np.asarray(falls) + np.arange(40) / 40, -3, 3)
    np.testing.assert_allclose(
        got.mean(), 0.2 * c.mean() + 0.8 * c[-10:].mean(), rtol=1e-4
    )


def test_the_nominal_rule_is_worth_nothing(toy, family):
    """On average; the curve is that of the rule itself."""

    @jax.jit
    def mean(key):
        one, two = jax.random.split(key)
        against = reference(toy.make, toy.start, family, PLAIN, one, 4096)
        steps = problem(toy.make, family, PLAIN, 10, against)

        def whole(key):
            episode = steps.begin(key)
            body = lambda inner, t: steps.step(toy.start, inner, episode, t)
            first = steps.start(toy.start, episode)
            return jax.lax.scan(body, first, jnp.arange(40))[1].mean()

        return jax.vmap(whole)(jax.random.split(two, 4096)).mean(), against

    value, against = mean(jax.random.key(0))
    assert abs(float(value)) < 0.1
    assert against.curve.shape == (33,)
    assert float(against.scale) >= 0.02


def test_a_curve_is_the_mean_log_fall_where_the_rule_stands_still(toy, bowl):
    """Only mini-batches differ then; a rule that diverges counts as its start."""
    still = {**toy.start, "log_step": jnp.asarray(-99.0)}
    wild = {**toy.start, "log_step": jnp.asarray(9.0)}
    go = jax.jit(
        lambda theta: reference(
            toy.make, theta, bowl(horizon=40), PLAIN, jax.random.key(0), 4
        )
    )
    np.testing.assert_allclose(go(still).curve, 0.0, atol=0.1)
    np.testing.assert_allclose(go(still).scale, 0.02)
    assert np.isfinite(go(wild).curve).all()
    assert (go(wild).curve <= 0).all()
    assert (go(toy.start).curve[8:] < -0.05).all()


def test_a_scale_is_the_fall_of_a_doubling():
    """Where loss ~ t^-0.3 it is 0.3; what diverges counts as the first loss."""
    places = jnp.linspace(0, 1, 33)
    power = -0.3 * jnp.log(jnp.maximum(places, 1e-3))
    np.testing.assert_allclose(doubling(power), 0.3, rtol=1e-4)
    np.testing.assert_allclose(doubling(jnp.zeros(33)), 0.02)
    falls = jnp.stack([jnp.full(33, -1.0), jnp.full(33, jnp.nan), jnp.full(33, 5.0)])
    np.testing.assert_allclose(mean_curve(falls), -1 / 3, rtol=1e-5)
