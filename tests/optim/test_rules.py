import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from uets_jax.config import OptimConfig
from uets_jax.models.axes import hidden_matrix, is_matrix, map_axes
from uets_jax.models.presets import model_config
from uets_jax.models.transformer import make_model
from uets_jax.optim.rules import decay_and_scale, rule, scale_by_matrix_size

MATRICES = functools.partial(map_axes, hidden_matrix)
DECAYED = functools.partial(map_axes, is_matrix)
NAMES = ("adamw", "lion", "muon")
SETTINGS = {"learning_rate": 0.01, "weight_decay": 0.1, "clip": 0.0}


@pytest.fixture(scope="module")
def params():
    config = model_config("modern", "tiny", vocab=64, depth=3)
    shapes = jax.eval_shape(make_model(config).init, jax.random.key(0))
    return random_like(shapes, 0)


def random_like(tree, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), tree)


def make(name, **changes):
    settings = {**SETTINGS, **changes}
    return rule(OptimConfig(name=name, **settings), MATRICES, DECAYED)


def run(tx, params, steps=3):
    @jax.jit
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for seed in range(steps):
        params, state = step(params, state, random_like(params, seed + 1))
    return params


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_adamw_and_lion_equal_optax(name, params):
    build = {
        "adamw": functools.partial(optax.adamw, b2=0.95),
        "lion": functools.partial(optax.lion, b2=0.95),
    }[name]
    theirs = build(0.01, b1=0.9, weight_decay=0.1, mask=DECAYED)
    expected = run(theirs, params)
    chex.assert_trees_all_close(run(make(name), params), expected, rtol=2e-5, atol=1e-6)


def newton_schulz(g):
    """Five iterations on one matrix, in NumPy, float64."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g / np.linalg.norm(g)
    flip = x.shape[0] > x.shape[1]
    x = x.T if flip else x
    for _ in range(5):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x.T if flip else x


def as_matrices(leaf, axes):
    inputs, _ = axes
    rows = int(np.prod([leaf.shape[a] for a in inputs]))
    return np.asarray(leaf, np.float64).reshape(leaf.shape[0], rows, -1)


def test_muon_orthogonalises_each_layer_of_a_stack_on_its_own(params):
    grads = random_like(params, 1)
    tx = make("muon", weight_decay=0.0)
    updates, _ = jax.jit(tx.update)(grads, tx.init(params), params)
    checked = 0
    for path in (("mlp", "up"), ("mlp", "down"), ("attention", "output")):
        g, u = (t["blocks"][path[0]][path[1]]["w"] for t in (grads, updates))
        axes = ((1, 2), (3,)) if path[1] == "output" else ((1,), (2,))
        for gradient, update in zip(
            as_matrices(g, axes), as_matrices(u, axes), strict=True
        ):
            rms = 0.2 * max(gradient.shape) ** 0.5
            expected = -0.01 * rms * newton_schulz(gradient)
            np.testing.assert_allclose(update, expected, atol=1e-5)
            checked += 1
    assert checked == 9


def test_muon_leaves_gains_embedding_and_head_to_adam(params):
    grads = random_like(params, 1)
    updates = {}
    for name in ("muon", "adamw"):
        tx = make(name, weight_decay=0.0, adam_ratio=1.0)
        updates[name], _ = tx.update(grads, tx.init(params), params)
    pick = lambda t: (t["embed"], t["head"], t["blocks"]["mlp_norm"], t["final_norm"])
    chex.assert_trees_all_close(
        pick(updates["muon"]), pick(updates["adamw"]), rtol=1e-5
    )


def test_weight_decay_spares_gains_and_biases():
    config = model_config("gpt2", "tiny", vocab=64)
    shapes = jax.eval_shape(make_model(config).init, jax.random.key(0))
    params = random_like(shapes, 0)
    tx = decay_and_scale(0.5, 0.1, DECAYED)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zero, tx.init(params), params)
    is_zero = jax.tree.map(lambda u: bool((u == 0).all()), updates)
    assert is_zero == jax.tree.map(lambda d: not d, DECAYED(params))
    np.testing.assert_allclose(
        updates["embed"]["table"], -0.05 * params["embed"]["table"], rtol=1e-6
    )


def test_extra_arguments_win_over_the_config(params):
    tx, grads = make("adamw"), random_like(params, 1)
    state = tx.init(params)
    own, _ = tx.update(grads, state, params)
    zero = jnp.float32(0)
    still, _ = tx.update(grads, state, params, learning_rate=zero, weight_decay=zero)
    assert float(optax.tree.norm(own)) > 0
    assert float(optax.tree.norm(still)) == 0


def test_clipping_bounds_the_gradient_that_moments_see(params):
    big = jax.tree.map(lambda p: 1e3 * p, random_like(params, 1))
    tx = optax.chain(optax.clip_by_global_norm(1.0), make("adamw"))
    theirs, _ = tx.update(big, tx.init(params), params)
    ours, _ = make("adamw", clip=1.0).update(
        big, make("adamw", clip=1.0).init(params), params
    )
    chex.assert_trees_all_close(ours, theirs, rtol=1e-6)


def test_orthogonal_updates_get_the_rms_of_adams():
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(64, 16)))
    updates = {"blocks": {"up": {"w": jnp.asarray(q.T[None], jnp.float32)}}}
    scaled, _ = scale_by_matrix_size(MATRICES).update(updates, optax.EmptyState())
    rms = jnp.sqrt(jnp.square(scaled["blocks"]["up"]["w"]).mean())
    assert rms == pytest.approx(0.2, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_rules_compose_as_optax_transformations_do(name, params):
    small = {"embed": params["embed"], "blocks": {"up": {"w": jnp.ones((2, 4, 6))}}}
    own = {**small, "frozen": None}
    tx = make(name)
    assert run(tx, own)["frozen"] is None
    assert run(tx, {}) == {}
    chained = optax.chain(optax.scale(1.0), tx)
    chex.assert_trees_all_close(run(chained, small), run(tx, small))
    masked = optax.masked(tx, lambda p: jax.tree.map(lambda _: True, p))
    chex.assert_trees_all_close(run(masked, small), run(tx, small))
    twice = optax.MultiSteps(tx, 2).gradient_transformation()
    moved = run(twice, small, steps=2)
    assert not np.array_equal(moved["embed"]["table"], small["embed"]["table"])
    chex.assert_trees_all_equal(run(twice, small, steps=1), small)


@pytest.mark.parametrize("name", NAMES)
def test_update_needs_params(name):
    tx, params = make(name), {"embed": {"table": jnp.ones((2, 2))}}
    with pytest.raises(ValueError, match="params"):
        tx.update(params, tx.init(params))
