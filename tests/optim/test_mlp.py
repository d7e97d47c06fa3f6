import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from uets_jax.optim.mlp import (
    WIDTH,
    direction,
    features_of,
    init_mlp,
    scale_by_learned_mlp,
)

SHAPE = (2, 1, 4, 5)


def inputs(moments=2, scale=1.0):
    rng = np.random.default_rng(0)
    draw = lambda: scale * jnp.asarray(rng.normal(size=SHAPE), jnp.float32)
    return draw(), draw(), [draw() for _ in range(moments)], draw() ** 2


def test_the_output_has_rms_1_over_the_last_two_axes_and_no_scale(key):
    theta = init_mlp(key, 2)
    out = direction(theta, *inputs())
    np.testing.assert_allclose(jnp.square(out).mean((-2, -1)), 1, rtol=1e-5)
    np.testing.assert_allclose(direction(theta, *inputs(scale=9.0)), out, atol=1e-4)
    assert theta.w1.shape == (features_of(2), WIDTH) == (13, 8)


def test_it_begins_as_the_first_moment(key):
    g, p, [m], v = inputs(1)
    rms = jnp.sqrt(jnp.square(m).mean((-2, -1), keepdims=True))
    found = direction(init_mlp(key, 1), g, p, [m], v)
    np.testing.assert_allclose(found, m / rms, atol=1e-5)


def test_it_is_the_network_that_numpy_computes(key):
    rng = np.random.default_rng(1)
    noise = lambda x: x + jnp.asarray(rng.normal(size=x.shape), x.dtype)
    theta = jax.tree.map(noise, init_mlp(key, 1))
    g, p, [m], v = (jax.tree.map(np.asarray, x) for x in inputs(1))
    row = 1 / np.sqrt(v.mean(-1, keepdims=True)) + 0 * v
    column = 1 / np.sqrt(v.mean(-2, keepdims=True)) + 0 * v
    r, both = 1 / np.sqrt(v), row * column
    each = [g, p, m, r, row, column, g * r, g * both, m * r, m * both]
    normed = lambda x: x / np.sqrt((x * x).mean((-2, -1), keepdims=True))
    x = np.stack([normed(e) for e in each], -1)
    w1, b1, w2, b2, w3 = map(np.asarray, theta)
    h = np.maximum(np.maximum(x @ w1 + b1, 0) @ w2 + b2, 0) @ w3
    np.testing.assert_allclose(
        direction(theta, *inputs(1)), normed(h[..., 0]), atol=1e-4
    )


def test_zeros_stay_zero_and_slopes_finite(key):
    theta, zero = init_mlp(key, 1), jnp.zeros(SHAPE)
    total = lambda t, g: direction(t, g, zero, [g], g * g).sum()
    assert float(total(theta, zero)) == 0
    chex.assert_tree_all_finite(jax.grad(total, (0, 1))(theta, zero))


@pytest.mark.parametrize("orthogonalise", [True, False])
def test_matrices_follow_the_network_and_the_rest_adam(
    orthogonalise, key, small, about, draw
):
    theta, grads = init_mlp(key), draw(1)
    make = lambda t: scale_by_learned_mlp(
        t, matrices=about["matrices"], orthogonalise=orthogonalise
    )
    tx = make(theta)
    updates, state = jax.jit(tx.update)(grads, tx.init(small), small)
    adam = optax.scale_by_adam(b2=0.95)
    expected, _ = adam.update(grads, adam.init(small))
    np.testing.assert_allclose(
        updates["head"]["w"], 2 * expected["head"]["w"], rtol=1e-5
    )
    up = updates["blocks"]["mlp"]["up"]["w"]
    np.testing.assert_allclose(jnp.sqrt(jnp.square(up).mean((1, 2))), 0.2, rtol=1e-4)
    if orthogonalise:
        values = np.linalg.svd(np.asarray(up), compute_uv=False)
        assert (values.max(1) / values.min(1)).max() < 2.5
    total = lambda t: optax.tree.sum(make(t).update(grads, tx.init(small), small)[0])
    chex.assert_tree_all_finite(jax.grad(total)(theta))
    chex.assert_trees_all_equal_shapes_and_dtypes(state, tx.init(small))


def test_it_composes(key, small, about, draw):
    tx = scale_by_learned_mlp(init_mlp(key), matrices=about["matrices"])
    tx = optax.chain(optax.clip_by_global_norm(1.0), tx, optax.scale(-0.1))
    own = {**small, "frozen": None}
    updates, _ = tx.update({**draw(1), "frozen": None}, tx.init(own), own)
    assert updates["frozen"] is None
    assert tx.update({}, tx.init({}), {})[0] == {}
    with pytest.raises(ValueError, match="params"):
        tx.update(draw(1), tx.init(small))
