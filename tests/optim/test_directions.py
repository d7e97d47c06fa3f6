import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from uets_jax.optim.directions import (
    Moments,
    adam,
    advance,
    lion,
    muon,
    orthogonal,
)
from uets_jax.optim.leaves import describe

SHAPE = (3, 4, 6)
EACH = jnp.full(3, 0.9)


def gradients():
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=SHAPE), jnp.float32) for _ in range(4)]


def moments_after(grads, b1=0.9):
    zero = jnp.zeros(SHAPE)
    moments = Moments(zero, zero, jnp.zeros(3), jnp.zeros(3))
    for g in grads:
        moments = advance(moments, g, jnp.full(3, b1), jnp.full(3, 0.95))
    return moments


def theirs(tx, grads):
    state = tx.init(grads[0])
    for g in grads:
        out, state = tx.update(g, state)
    return out


@pytest.mark.parametrize("ahead", [False, True])
def test_adam_is_that_of_optax(ahead):
    grads = gradients()
    ours = adam(moments_after(grads), grads[-1], EACH, 1e-8, ahead)
    tx = optax.scale_by_adam(0.9, 0.95, nesterov=ahead)
    np.testing.assert_allclose(ours, theirs(tx, grads), rtol=1e-5, atol=1e-6)


def test_lion_is_that_of_optax():
    grads = gradients()
    ours = lion(moments_after(grads[:-1]).mu, grads[-1], 0.9)
    np.testing.assert_array_equal(ours, theirs(optax.scale_by_lion(0.9, 0.9), grads))


@pytest.mark.parametrize("axes", [((1,), (2,)), ((2,), (1,))])
def test_muon_is_that_of_optax(axes):
    grads = gradients()
    [leaf] = describe([grads[0]], matrices=lambda p: [axes])
    ours = muon(moments_after(grads, 0.95), grads[-1], jnp.full(3, 0.95), 1e-8, leaf)
    spec = contrib.MuonDimensionNumbers(*axes)
    tx = contrib.scale_by_muon(weight_dimension_numbers=spec)
    np.testing.assert_allclose(ours, theirs(tx, grads), atol=2e-6)


def test_a_changing_decay_keeps_the_mean_of_a_constant_gradient():
    g, zero = jnp.full((2, 3), 0.7), jnp.zeros((2, 3))
    moments = Moments(zero, zero, jnp.zeros(2), jnp.zeros(2))
    for b in (0.9, 0.5, 0.99):
        moments = advance(moments, g, jnp.asarray([b, 0.8]), jnp.full(2, 0.95))
        np.testing.assert_allclose(moments.mu / moments.first[:, None], g, rtol=1e-6)


def test_singular_values_come_near_one():
    x = gradients()[0][None]
    values = np.linalg.svd(np.asarray(orthogonal(x)), compute_uv=False)
    assert values.min() > 0.6
    assert values.max() < 1.25


def test_zero_gradients_have_finite_slopes():
    [leaf] = describe([jnp.zeros(SHAPE)], matrices=lambda p: [((1,), (2,))])

    def total(g):
        moments = moments_after([g])
        both = muon(moments, g, EACH, 1e-8, leaf) + adam(moments, g, EACH, 1e-8)
        return both.sum()

    zero = jnp.zeros(SHAPE)
    assert float(total(zero)) == 0
    chex.assert_tree_all_finite(jax.grad(total)(zero))
