"""Augmentation keeps the function; the objective is 0 for the nominal rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.meta.augment import PLAIN, AugmentConfig, augmentation, stored, used
from uets_jax.meta.episode import Reference, problem, reference, run
from uets_jax.meta.task_quadratic import quadratic

FAMILY = quadratic(4, 3, 30.0, 40)
LIKE = {"a": jnp.ones((3, 2)), "b": jnp.ones(4)}


def draws(config, n=2000):
    keys = jax.random.split(jax.random.key(0), n)
    draw = lambda key: augmentation(config, key, LIKE, 16, 100, 10)
    return jax.jit(jax.vmap(draw))(keys)


def test_ranges_and_shares():
    config = AugmentConfig(scale=2.0, tensor_scale=3.0, rate=3.0, horizon=1.5, long=0.1)
    drawn = draws(config)
    assert set(np.unique(np.asarray(drawn.horizon) % 10)) == {0}
    long = np.asarray(drawn.horizon) == 200
    assert 0.07 < long.mean() < 0.13
    assert np.asarray(drawn.horizon)[~long].min() >= 60
    assert np.asarray(drawn.horizon)[~long].max() <= 150
    rate = np.log(np.asarray(drawn.rate))
    assert abs(rate.mean()) < 0.05
    assert abs(rate).max() <= np.log(3) + 1e-5
    np.testing.assert_allclose(rate.std(), np.log(3) / 3**0.5, rtol=0.05)
    assert 4 <= int(drawn.rows.min()) < int(drawn.rows.max()) <= 16
    a, b = (np.log(np.asarray(drawn.scales[k])) for k in "ab")
    assert abs(a).max() <= np.log(6) + 1e-5
    assert np.corrcoef(a, b)[0, 1] > 0.15  # the global factor


def test_stored_parameters_are_used_as_they_were():
    drawn = jax.tree.map(lambda x: x[0], draws(AugmentConfig(init=1.0), 1))
    back = used(stored(LIKE, drawn), drawn)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), back, LIKE)


def test_plain_changes_nothing():
    drawn = draws(PLAIN, 8)
    for leaf in jax.tree.leaves((drawn.scales, drawn.init, drawn.rate)):
        np.testing.assert_array_equal(leaf, 1.0)
    np.testing.assert_array_equal(drawn.horizon, 100)
    np.testing.assert_array_equal(drawn.rows, 16)


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


def test_bad_ranges_are_named():
    with pytest.raises(UserError, match=r"augment\.rate"):
        AugmentConfig(rate=0.5)
    with pytest.raises(UserError, match=r"augment\.batch"):
        AugmentConfig(batch=0.0)
