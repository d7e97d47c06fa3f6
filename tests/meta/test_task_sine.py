"""Sinusoids: the error by hand, instances in range, points that repeat."""

import jax
import jax.numpy as jnp
import numpy as np

from uets_jax.meta.task_sine import Sine, sine

FAMILY = sine(4, batch=6)
OWN = Sine(jnp.asarray(2.0), jnp.asarray(0.5))


def test_amplitudes_and_phases_are_in_range_and_distinct():
    keys = jax.random.split(jax.random.key(0), 500)
    found = jax.vmap(FAMILY.instance)(keys)
    assert 0.1 <= found.amplitude.min() < 0.3
    assert 4.8 < found.amplitude.max() <= 5.0
    assert 0.0 <= found.phase.min() < 0.1
    assert 3.0 < found.phase.max() <= np.pi


def test_the_held_error_is_that_of_the_formula(key):
    params = FAMILY.init(OWN, key)
    x = np.linspace(-5, 5, 101)
    layers = [jax.tree.map(np.asarray, params[f"layer{i}"]) for i in range(3)]
    h = x[:, None] @ layers[0]["w"] + layers[0]["b"]
    for layer in layers[1:]:
        h = np.tanh(h) @ layer["w"] + layer["b"]
    expected = np.square(h[:, 0] - 2.0 * np.sin(x - 0.5)).mean()
    np.testing.assert_allclose(FAMILY.held(params, OWN), expected, rtol=1e-4)


def test_a_loss_of_one_row_is_that_of_its_one_point(key):
    """A network of zeros has the error amplitude^2 sin^2(x - phase)."""
    zero = jax.tree.map(jnp.zeros_like, FAMILY.init(OWN, key))
    draw = jax.random.key(1)
    x = jax.random.uniform(jax.random.key(1), (6,), minval=-5.0, maxval=5.0)
    each = np.square(2.0 * np.sin(np.asarray(x) - 0.5))
    loss = lambda rows: FAMILY.loss(
        zero, OWN, jax.random.clone(draw), jnp.asarray(rows)
    )
    np.testing.assert_allclose(loss(1), each[0], rtol=1e-4)
    np.testing.assert_allclose(loss(2), each[:2].mean(), rtol=1e-4)
    np.testing.assert_allclose(loss(6), each.mean(), rtol=1e-4)
