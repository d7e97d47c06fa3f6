import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from uets_jax.models.axes import hidden_matrix, map_axes
from uets_jax.optim.normuon import scale_by_normuon, scale_by_orthogonal

MATRICES = functools.partial(map_axes, hidden_matrix)
B2 = 0.9
# one leaf with two input axes, one with two output axes, experts, and no matrix
SHAPES = {
    "attention": {
        "output": {"w": (2, 2, 3, 8)},
        "query": {"w": (2, 8, 2, 3)},
    },
    "experts": {"up": {"w": (2, 3, 8, 4)}},
    "mlp": {"down": {"w": (2, 4, 8)}, "up": {"b": (2, 4)}},
}
AXES = {
    ("attention", "output"): ((1, 2), (3,)),
    ("attention", "query"): ((1,), (2, 3)),
    ("experts", "up"): ((2,), (3,)),
    ("mlp", "down"): ((1,), (2,)),
}


def tree(seed):
    rng = np.random.default_rng(seed)
    make = lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    is_shape = lambda x: isinstance(x, tuple)
    return {"blocks": jax.tree.map(make, SHAPES, is_leaf=is_shape)}


def stack(leaf, axes):
    """[matrices, inputs, outputs] in NumPy."""
    rest = [a for a in range(leaf.ndim) if a not in (*axes[0], *axes[1])]
    turned = np.transpose(np.asarray(leaf, np.float64), (*rest, *axes[0], *axes[1]))
    rows = int(np.prod([leaf.shape[a] for a in axes[0]]))
    outputs = int(np.prod([leaf.shape[a] for a in axes[1]]))
    return turned.reshape(-1, rows, outputs)


def newton_schulz(g):
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g / np.linalg.norm(g)
    flip = x.shape[0] > x.shape[1]
    x = x.T if flip else x
    for _ in range(5):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x.T if flip else x


def reference(gradients, momentum):
    """Updates of one matrix, step by step: the authors' code in NumPy.

    Their momentum has no bias correction; optax's is a positive factor per step on each
    of its two terms, which is written out here.
    """
    mu, nu, found = 0.0, 0.0, []
    for t, g in enumerate(gradients, 1):
        mu = momentum * mu + (1 - momentum) * g
        ahead = momentum * mu / (1 - momentum ** (t + 1))
        u = newton_schulz(ahead + (1 - momentum) * g / (1 - momentum**t))
        nu = B2 * nu + (1 - B2) * (u * u).mean(0, keepdims=True)
        v = u / np.sqrt(nu)
        found.append(v * np.linalg.norm(u) / np.linalg.norm(v))
    return found


def updates_of(tx, steps=4):
    state, found = tx.init(tree(0)), []
    for seed in range(steps):
        u, state = jax.jit(tx.update)(tree(seed), state)
        found.append(u["blocks"])
    return found, state


def test_updates_equal_the_authors_code_matrix_by_matrix():
    found, _ = updates_of(scale_by_normuon(MATRICES, 0.8, B2))
    checked = 0
    for (room, leaf), axes in AXES.items():
        pick = lambda t, r=room, n=leaf, a=axes: stack(t[r][n]["w"], a)
        gradients = [pick(tree(seed)["blocks"]) for seed in range(4)]
        ours = [pick(u) for u in found]
        for i in range(len(gradients[0])):
            expected = reference([g[i] for g in gradients], 0.8)
            for u, v in zip(ours, expected, strict=True):
                np.testing.assert_allclose(u[i], v, rtol=1e-4, atol=2e-5)
                checked += 1
    assert checked == 4 * (2 + 2 + 6 + 2)


def test_neurons_step_alike_and_each_matrix_keeps_its_norm():
    [update], _ = updates_of(scale_by_normuon(MATRICES), steps=1)
    plain, _ = updates_of(
        optax.masked(
            scale_by_orthogonal(MATRICES, 0.95, 1e-8),
            lambda p: jax.tree.map(lambda x: x.ndim > 2, p),
        ),
        steps=1,
    )
    for (room, leaf), axes in AXES.items():
        u, v = (stack(t[room][leaf]["w"], axes) for t in (update, plain[0]))
        norms = np.linalg.norm(u, axis=1)
        same = np.broadcast_to(norms[:, :1], norms.shape)
        np.testing.assert_allclose(norms, same, rtol=1e-4)
        whole = lambda x: np.linalg.norm(x, axis=(1, 2))
        np.testing.assert_allclose(whole(u), whole(v), rtol=1e-4)


def test_what_is_no_matrix_passes_and_the_state_has_one_number_per_neuron():
    tx = scale_by_normuon(MATRICES)
    [update], state = updates_of(tx, steps=1)
    bias = tree(0)["blocks"]["mlp"]["up"]["b"]
    np.testing.assert_array_equal(update["mlp"]["up"]["b"], bias)
    nu = state.inner_state[1].nu["blocks"]
    assert nu["attention"]["output"]["w"].shape == (2, 1, 1, 8)
    assert nu["experts"]["up"]["w"].shape == (2, 3, 1, 4)


def test_a_neuron_without_gradient_stays():
    gradient = tree(0)
    up = gradient["blocks"]["experts"]["up"]["w"]
    gradient["blocks"]["experts"]["up"]["w"] = up.at[..., 1].set(0).at[0, 0].set(0)
    tx = scale_by_normuon(MATRICES)
    update, _ = jax.jit(tx.update)(gradient, tx.init(gradient))
    found = update["blocks"]["experts"]["up"]["w"]
    chex.assert_tree_all_finite(found)
    assert not found[..., 1].any()
    assert not found[0, 0].any()
