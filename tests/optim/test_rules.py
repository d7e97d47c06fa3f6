import functools
import typing

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from uets_jax.config import OptimConfig
from uets_jax.models.axes import hidden_matrix, is_matrix, map_axes
from uets_jax.models.presets import model_config
from uets_jax.models.transformer import make_model
from uets_jax.optim.rules import decay_and_scale, rule, scale_by_matrix_size

MATRICES = functools.partial(map_axes, hidden_matrix)
DECAYED = functools.partial(map_axes, is_matrix)
ALL = typing.get_args(typing.get_type_hints(OptimConfig)["name"])
NAMES = [name for name in ALL if name != "learned"]  # it has tests of its own
W = jnp.asarray(np.random.default_rng(7).normal(size=(2, 4, 6)), jnp.float32)
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


def decayed_by_optax(direction):
    """A rule of optax's parts."""
    decay = optax.add_decayed_weights(0.1, DECAYED)
    return optax.chain(direction, decay, optax.scale_by_learning_rate(0.01))


@pytest.mark.parametrize("name", ["adamw", "lion", "rmsprop", "sgd"])
def test_the_rest_has_a_rate_of_its_own(name, params):
    """Without decay: as if embeddings, head and norms had another learning rate."""
    more = {"weight_decay": 0.0}
    ours = run(make(name, rest_ratio=4.0, **more), params)
    one, four = (
        run(make(name, **more), params),
        run(make(name, learning_rate=0.04, **more), params),
    )
    pick = lambda axes, a, b: b if axes is None else a
    is_axes = lambda x: x is None or isinstance(x, tuple)
    expected = jax.tree.map(pick, MATRICES(params), one, four, is_leaf=is_axes)
    chex.assert_trees_all_close(ours, expected, rtol=1e-5, atol=1e-6)


THEIRS = {
    "adamw": lambda: optax.adamw(0.01, 0.9, 0.95, weight_decay=0.1, mask=DECAYED),
    "lion": lambda: optax.lion(0.01, 0.9, 0.95, weight_decay=0.1, mask=DECAYED),
    "sgd": lambda: decayed_by_optax(optax.sgd(-1.0, momentum=0.95)),
    "rmsprop": lambda: decayed_by_optax(
        optax.rmsprop(-1.0, 0.95, 1e-8, eps_in_sqrt=False, bias_correction=True)
    ),
    "schedule_free": lambda: contrib.schedule_free(
        decayed_by_optax(optax.scale_by_adam(b1=0.0, b2=0.95)), 0.01, b1=0.9
    ),
}


@pytest.mark.parametrize("name", THEIRS)
def test_what_optax_has_equals_optax(name, params):
    expected = run(THEIRS[name](), params, steps=5)
    ours = run(make(name), params, steps=5)
    chex.assert_trees_all_close(ours, expected, rtol=2e-5, atol=2e-6)


def test_cautious_decay_never_opposes_the_step():
    p = {"embed": {"table": jnp.array([[2.0, -2.0, 2.0], [-2.0, 3.0, 1.0]])}}
    u = {"embed": {"table": jnp.array([[1.0, -1.0, -1.0], [1.0, 0.0, 0.05]])}}
    tx = decay_and_scale(0.5, 0.1, DECAYED, cautious=True)
    found, _ = tx.update(u, tx.init(p), p)
    decayed = jnp.array([[0.2, -0.2, 0.0], [0.0, 0.3, 0.1]])
    expected = -0.5 * (u["embed"]["table"] + decayed)
    np.testing.assert_allclose(found["embed"]["table"], expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "normuon", "schedule_free"])
def test_cautious_is_a_setting_of_every_rule(name, params):
    """It takes away decay where the parameter has the sign of the step's opposite."""
    grads, found = random_like(params, 1), {}
    for cautious in (False, True):
        tx = make(name, cautious=cautious, weight_decay=0.1)
        state = jax.jit(tx.update)(grads, tx.init(params), params)[1]
        found[cautious], _ = jax.jit(tx.update)(grads, state, params)
    leaf = lambda t: np.asarray(t["embed"]["table"])
    p, plain, cautious = map(leaf, (params, found[False], found[True]))
    change = cautious - plain
    assert (change * p >= -1e-6).all()  # less decay, nowhere more
    assert 0.2 < (np.abs(change) < 1e-6).mean() < 0.8


@pytest.mark.parametrize("name", NAMES)
def test_rate_and_decay_are_traced(name, params):
    """One executable for all of them, and rate 0 is no step."""
    chex.clear_trace_counter()
    tx, grads = make(name), random_like(params, 1)
    once = chex.assert_max_traces(lambda *g, **k: tx.update(*g, **k), n=1)
    update, state = jax.jit(once), tx.init(params)
    steps = []
    for rate in (0.01, 0.02, 0.0):
        hypers = {"learning_rate": jnp.float32(rate), "weight_decay": jnp.float32(rate)}
        step, state = update(grads, state, params, **hypers)
        steps.append(float(optax.tree.norm(step)))
    assert steps[0] > 0
    assert steps[1] > 0
    assert (steps[2] == 0) == (name != "schedule_free")  # which averages still


@pytest.mark.parametrize("name", NAMES)
def test_rules_run_under_vmap(name):
    """As over the members of a population, each with a rate of its own."""
    small = {"embed": {"table": jnp.ones((3, 2))}, "blocks": {"up": {"w": W}}}
    grads = [random_like(small, seed) for seed in (1, 2)]
    tx = make(name)

    def after(rate):
        state, params = tx.init(small), small
        for g in grads:
            step, state = tx.update(g, state, params, learning_rate=rate)
            params = optax.apply_updates(params, step)
        return params

    rates = jnp.array([0.01, 0.1])
    alone = [jax.jit(after)(rate) for rate in rates]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *alone)
    chex.assert_trees_all_close(jax.jit(jax.vmap(after))(rates), stacked, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_injected_hyperparameters_change_nothing(name):
    small = {"embed": {"table": jnp.ones((3, 2))}, "blocks": {"up": {"w": W}}}
    injected = optax.inject_hyperparams(
        lambda scale: optax.chain(make(name), optax.scale(scale))
    )
    chex.assert_trees_all_close(run(injected(1.0), small), run(make(name), small))


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
