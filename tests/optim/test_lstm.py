import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from uets_jax.optim.lstm import init_lstm, scale_by_lstm, seen

SHAPES = {"a": (3, 2), "b": {"w": (4,)}, "c": ()}


def tree(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    is_shape = lambda x: isinstance(x, tuple)
    make = lambda s: jnp.asarray(scale * rng.normal(size=s), jnp.float32)
    return jax.tree.map(make, SHAPES, is_leaf=is_shape)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def reference(theta, gradients):
    """The directions of one coordinate, in NumPy, float64."""
    theta = jax.tree.map(lambda x: np.asarray(x, np.float64), theta)
    states = {name: (np.zeros(20), np.zeros(20)) for name in ("first", "second")}
    found = []
    for g in gradients:
        if abs(g) >= np.exp(-10):
            x = np.array([np.log(abs(g)) / 10, np.sign(g)])
        else:
            x = np.array([-1, np.exp(10) * g])
        for name, (h, c) in states.items():
            gates = np.concatenate([x, h]) @ theta[name]["w"] + theta[name]["b"]
            i, new, f, o = np.split(gates, 4)
            c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(new)
            x = sigmoid(o) * np.tanh(c)
            states[name] = x, c
        found.append(0.1 * (x @ theta["out"]["w"] + theta["out"]["b"])[0])
    return found


def test_every_coordinate_equals_an_lstm_of_its_own(key):
    theta = init_lstm(key)
    theta = jax.tree.map(lambda x: x + 0.1, theta)  # biases that are not 0
    tx, scales = scale_by_lstm(theta), [1.0, 1e-3, 1e-6, 10.0]
    state, found = tx.init(tree(0)), []
    gradients = [tree(i, scale) for i, scale in enumerate(scales)]
    for g in gradients:
        update, state = jax.jit(tx.update)(g, state)
        found.append(update)
    for *path, index in (("a", (2, 1)), ("b", "w", (3,)), ("c", ())):
        pick = lambda t, path=path, index=index: (
            pick_path(t, path)[index].astype(np.float64).item()
        )
        expected = reference(theta, map(pick, gradients))
        np.testing.assert_allclose([pick(u) for u in found], expected, rtol=1e-4)


def pick_path(t, path):
    for name in path:
        t = t[name]
    return np.asarray(t)


@pytest.mark.parametrize("g", [1.0, -1.0, 2e-4, -2e-4, 4e-5, -4e-5, 0.0, 1e30, -1e-38])
def test_what_is_seen_of_a_gradient_is_bounded_and_smooth(g):
    x = np.asarray(seen(jnp.float32(g)))
    if abs(g) >= np.exp(-10):
        expected = [np.log(abs(g)) / 10, np.sign(g)]
    else:
        expected = [-1, np.exp(10) * g]
    np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-6)
    slope = jax.grad(lambda v: seen(v).sum())(jnp.float32(g))
    assert np.isfinite(slope)


def loss_after(theta, steps=4):
    """Of a quadratic after some steps of the rule."""
    tx = scale_by_lstm(theta)
    loss = lambda p: optax.tree.norm(p, squared=True)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, jax.tree.map(jnp.negative, updates)), state)

    start = tree(0), tx.init(tree(0))
    (params, _), _ = jax.lax.scan(lambda c, x: (step(c, x), None), start, length=steps)
    return loss(params)


def test_weights_are_an_argument_under_vmap(key):
    keys = jax.random.split(key, 3)
    thetas = jax.vmap(init_lstm)(keys)
    many = jax.jit(jax.vmap(loss_after))(thetas)
    alone = [
        jax.jit(loss_after)(jax.tree.map(lambda x, i=i: x[i], thetas)) for i in range(3)
    ]
    np.testing.assert_allclose(many, alone, rtol=1e-5)
    assert len(set(many.tolist())) == 3


def test_a_gradient_goes_through_the_updates(key):
    """Backward equals the slope of differences in a random direction, in float64."""
    theta = init_lstm(key)
    direction = init_lstm(jax.random.key(1))
    slope = optax.tree.vdot(jax.jit(jax.grad(loss_after))(theta), direction)
    shifted = lambda h: jax.tree.map(lambda t, d: t + h * d, theta, direction)
    ends = [float(jax.jit(loss_after)(shifted(h))) for h in (0.02, -0.02)]
    assert float(slope) == pytest.approx((ends[0] - ends[1]) / 0.04, rel=2e-2)


def test_training_the_weights_makes_it_descend(key):
    theta, adam = init_lstm(key), optax.adam(0.01)

    @jax.jit
    def update(theta, state):
        loss, grads = jax.value_and_grad(loss_after)(theta)
        steps, state = adam.update(grads, state)
        return optax.apply_updates(theta, steps), state, loss

    state, losses = adam.init(theta), []
    for _ in range(30):
        theta, state, loss = update(theta, state)
        losses.append(float(loss))
    assert losses[-1] < 0.9 * losses[0]


def test_it_keeps_dtypes_and_composes(key):
    tx = scale_by_lstm(init_lstm(key))
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), tree(0))
    updates, state = tx.update(low, tx.init(low))
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, low)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, tx.init(low))
    assert tx.update({}, tx.init({}))[0] == {}
    own = {**tree(0), "frozen": None}
    found, _ = tx.update(own, tx.init(own))
    assert found["frozen"] is None
    chained = optax.chain(optax.clip(1.0), tx, optax.scale_by_learning_rate(0.1))
    masked = optax.masked(chained, {**jax.tree.map(lambda _: True, tree(0))})
    twice = optax.MultiSteps(masked, 2)
    updates, _ = twice.update(tree(1), twice.init(tree(0)), tree(0))
    assert not optax.tree.norm(updates)
