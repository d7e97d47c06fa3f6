"""The objective is what the docstring says, and 0 for the nominal rule."""

import jax
import jax.numpy as jnp
import numpy as np

from uets_jax.meta.augment import PLAIN
from uets_jax.meta.episode import Reference, problem, reference, run
from uets_jax.meta.task_quadratic import quadratic

FAMILY = quadratic(4, 3, 30.0, 40)


def test_values_add_up_to_the_objective(toy):
    """0.2 mean + 0.8 mean over the last window, each clipped, by hand."""
    against = Reference(jnp.linspace(0, -1.0, 33), jnp.asarray(1.0))
    steps = problem(toy.make, FAMILY, PLAIN, 10, against)
    parts = run(toy.make, FAMILY, PLAIN, 10)
    episode = parts.begin(jax.random.key(0))

    def values(f):
        body = lambda inner, t: f(toy.start, inner, episode, t)
        return jax.lax.scan(body, parts.start(toy.start, episode), jnp.arange(40))[1]

    falls, got = values(parts.advance), values(steps.step)
    c = np.clip(np.asarray(falls) + np.arange(40) / 40, -1, 1)
    np.testing.assert_allclose(
        got.mean(), 0.2 * c.mean() + 0.8 * c[-10:].mean(), rtol=1e-4
    )


def test_the_nominal_rule_is_worth_nothing(toy):
    """On average; the curve is that of the rule itself."""

    @jax.jit
    def mean(key):
        one, two = jax.random.split(key)
        against = reference(toy.make, toy.start, FAMILY, PLAIN, one, 256)
        steps = problem(toy.make, FAMILY, PLAIN, 10, against)

        def whole(key):
            episode = steps.begin(key)
            body = lambda inner, t: steps.step(toy.start, inner, episode, t)
            first = steps.start(toy.start, episode)
            return jax.lax.scan(body, first, jnp.arange(40))[1].mean()

        return jax.vmap(whole)(jax.random.split(two, 256)).mean(), against

    value, against = mean(jax.random.key(0))
    assert abs(float(value)) < 0.1
    assert against.curve.shape == (33,)
    assert float(against.scale) >= 0.1
