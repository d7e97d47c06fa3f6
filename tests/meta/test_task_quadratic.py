"""Quadratics: optimum, condition, the noise of a mini-batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.meta.task_quadratic import quadratic


@pytest.mark.parametrize("shape", [(4, 3), (6, 1)])
def test_instances_are_finite_distinct_and_learn(shape, learns):
    learns(quadratic(*shape))


def test_a_quadratic_has_its_optimum_and_condition():
    family = quadratic(6, 1, condition=100.0)
    instance = family.instance(jax.random.key(0))
    at = family.held({"w": instance.goal}, instance)
    np.testing.assert_allclose(at, instance.floor)
    grown = np.linalg.eigvalsh(np.asarray(instance.left))
    assert 1 < (grown.max() / grown.min()) ** 2 <= 101


def test_noise_falls_with_the_rows_of_a_mini_batch():
    """A loss at the goal is the floor and the noise in the curvature's metric."""
    family = quadratic(6, 1, condition=100.0)
    own = family.instance(jax.random.key(0))._replace(noise=jnp.asarray(0.5))
    at = {"w": own.goal}

    @jax.jit
    def mean(rows):
        keys = jax.random.split(jax.random.key(1), 4096)
        return jax.vmap(lambda k: family.loss(at, own, k, rows))(keys).mean()

    trace = float(jnp.square(own.left).sum() * jnp.square(own.right).sum())
    for rows, distinct in ((1, 1), (4, 4), (16, 16), (99, 16)):
        expected = own.floor + 0.5 * 0.5**2 * trace / distinct
        np.testing.assert_allclose(mean(jnp.asarray(rows)), expected, rtol=0.1)
