import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.build import build, initial_state
from uets_jax.config import expert_rows, replace_from_dict
from uets_jax.models.layers import MLP
from uets_jax.models.moe import Experts, choose, move, places
from uets_jax.models.presets import model_config
from uets_jax.models.transformer import make_model
from uets_jax.step import train_step

SHAPE = (2, 9, 8)  # rows, places, width


@pytest.fixture
def precise():
    with jax.enable_x64(True):
        yield


def layer(**fields):
    """The config of a layer of four small experts."""
    fields = {"experts": 4, "width": 8, "hidden": 6} | fields
    return model_config("modern", "tiny", vocab=64, **fields)


def drawn(module, x, seed=1):
    """Parameters with every entry random, in the precision of `x`."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    return jax.tree.map(
        lambda s: jnp.asarray(rng.normal(size=s.shape), x.dtype), shapes
    )


def inputs(shape=SHAPE, dtype=jnp.float64):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)


def act(config, up, gate):
    if config.activation == "relu2":
        return np.maximum(up, 0) ** 2
    return gate / (1 + np.exp(-gate)) * up


def by_hand(config, params, x):
    """A loop over tokens: (output, assignments to each expert, assignments lost)."""
    p = jax.tree.map(np.asarray, params)
    matrix = lambda name, e: (p[name]["w"][e], p[name]["b"][e] if config.bias else 0.0)
    rows = expert_rows(config, x.shape[0] * x.shape[1])
    taken, lost = np.zeros(config.experts, int), 0
    out = np.zeros(x.shape)
    for place in np.ndindex(*x.shape[:2]):
        token = np.asarray(x[place])
        scores = token @ p["router"]["w"]
        best = sorted(range(config.experts), key=lambda e: -scores[e])
        best = best[: config.active_experts]
        odds = np.exp(scores[best] - scores[best].max())
        for e, weight in zip(best, odds / odds.sum(), strict=True):
            taken[e] += 1
            if taken[e] > rows:
                lost += 1
                continue
            into = {
                name: token @ matrix(name, e)[0] + matrix(name, e)[1]
                for name in ("up", "gate")
                if name in p
            }
            hidden = act(config, into["up"], into.get("gate"))
            w, b = matrix("down", e)
            out[place] += weight * (hidden @ w + b)
    return out, taken, lost


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("capacity", [0.0, 0.5, 1.25])
@pytest.mark.parametrize("kind", [{}, {"activation": "swiglu", "bias": True}])
def test_a_layer_equals_a_loop_over_its_tokens(k, capacity, kind, precise):
    config = layer(active_experts=k, capacity=capacity, **kind)
    module, x = Experts(config), inputs()
    params = drawn(module, x)
    y, routing = jax.jit(module.apply)({"params": params}, x)
    expected, taken, lost = by_hand(config, params, x)
    np.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(routing.load, taken / (18 * k), rtol=1e-12)
    assert float(routing.dropped) == pytest.approx(lost / (18 * k))
    assert lost > 0 if capacity == 0.5 else lost == 0 or capacity


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("kind", [{}, {"activation": "swiglu", "bias": True}])
def test_copies_of_one_mlp_with_room_for_all_are_that_mlp(k, kind, precise):
    config = layer(active_experts=k, capacity=0.0, **kind)
    module, dense, x = Experts(config), MLP(config), inputs()
    one = drawn(dense, x)
    copies = jax.tree.map(lambda p: jnp.repeat(p[None], 4, 0), one)
    params = {**copies, "router": drawn(module, x)["router"]}
    y, _ = module.apply({"params": params}, x)
    np.testing.assert_allclose(y, dense.apply({"params": one}, x), rtol=0, atol=1e-9)


def test_a_token_that_finds_its_experts_full_gets_zero():
    config = layer(capacity=0.01, activation="gelu")  # one row each
    module, x = Experts(config), jnp.ones(SHAPE)
    y, routing = module.apply({"params": drawn(module, x)}, x)
    assert np.any(y[0, 0])
    np.testing.assert_array_equal(y.reshape(-1, 8)[1:], 0.0)
    assert float(routing.dropped) == pytest.approx(17 / 18)


def test_what_a_token_gets_depends_on_no_later_one():
    config = layer(capacity=0.5, active_experts=2)
    module, x = Experts(config), inputs(dtype=jnp.float32)
    variables = {"params": drawn(module, x)}
    apply = jax.jit(module.apply)
    before, _ = apply(variables, x)
    after, _ = apply(variables, x.at[1, 4].set(-3 * x[1, 4]))
    np.testing.assert_array_equal(before[0], after[0])
    np.testing.assert_array_equal(before[1, :4], after[1, :4])


def test_even_routing_has_the_least_penalty():
    config = layer(capacity=0.0)
    module, x = Experts(config), jnp.ones(SHAPE)
    params = drawn(module, x)
    params["router"]["w"] = jnp.zeros((8, 4))
    _, even = module.apply({"params": params}, x)  # all to the first: p is even
    assert float(even.penalty) == pytest.approx(1.0)
    params["router"]["w"] = jnp.zeros((8, 4)).at[:, 2].set(5.0)
    _, uneven = module.apply({"params": params}, x)
    assert float(uneven.penalty) == pytest.approx(4.0)
    np.testing.assert_array_equal(uneven.load, [0, 0, 1, 0])


def test_the_penalty_is_that_of_switch(precise):
    config = layer(active_experts=2)
    module, x = Experts(config), inputs()
    params = drawn(module, x)
    _, routing = module.apply({"params": params}, x)
    scores = np.exp(np.asarray(x).reshape(18, 8) @ np.asarray(params["router"]["w"]))
    p = (scores / scores.sum(1, keepdims=True)).mean(0)
    _, taken, _ = by_hand(config, params, x)
    assert float(routing.penalty) == pytest.approx(4 * (taken / 36 * p).sum())


def test_weights_of_chosen_experts_sum_to_one_and_are_their_softmax():
    logits = jnp.log(jnp.array([[1.0, 6.0, 2.0], [4.0, 1.0, 1.0]]))
    weights, experts = choose(logits, 2)
    np.testing.assert_array_equal(experts, [[1, 2], [0, 1]])
    np.testing.assert_allclose(weights, [[0.75, 0.25], [0.8, 0.2]], rtol=1e-6)


def test_a_single_weight_is_one_and_has_the_gradient_of_log_p():
    logits = jnp.array([[0.3, -1.0, 2.0]])
    weights, _ = choose(logits, 1)
    assert float(weights[0, 0]) == 1.0
    slope = jax.grad(lambda z: choose(z, 1)[0].sum())(logits)
    log_p = jax.grad(lambda z: jax.nn.log_softmax(z)[0, 2])(logits)
    np.testing.assert_allclose(slope, log_p, rtol=1e-6)


def test_places_are_given_in_order_and_lead_back():
    experts = jnp.array([2, 0, 2, 2, 0])
    of, source = places(experts, jnp.array([2, 0, 3]), rows=2)
    np.testing.assert_array_equal(of, [4, 0, 5, 6, 1])
    np.testing.assert_array_equal(source, [1, 4, 5, 5, 0, 2])


def test_the_gradient_of_a_move_is_that_of_a_look_up():
    x, weights = inputs((5, 3), jnp.float32), inputs((6, 3), jnp.float32)
    source = jnp.array([1, 4, 5, 5, 0, 2])
    target = jnp.array([4, 0, 5, 6, 1])
    plain = lambda x: x.at[source].get(mode="fill", fill_value=0)
    loss = lambda fn, x: (weights * fn(x) ** 2).sum()
    found = jax.grad(lambda x: loss(lambda x: move(x, source, target), x))(x)
    expected = jax.grad(lambda x: loss(plain, x))(x)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("capacity", "tokens", "rows"),
    [(0.0, 100, 100), (1.0, 100, 50), (1.25, 10, 7), (8.0, 10, 10), (0.001, 10, 1)],
)
def test_rows_of_an_expert(capacity, tokens, rows):
    config = layer(active_experts=2, capacity=capacity)
    assert expert_rows(config, tokens) == rows


def experts_of(tiny, **changes):
    fields = {"experts": 4, "active_experts": 2} | changes
    return replace_from_dict(tiny, {"model": fields})


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("k", [1, 2])
def test_the_router_learns_within_two_steps(name, k, tiny, batch):
    changes = {"model": {"experts": 4, "active_experts": k, "balance": 0.0}}
    config = replace_from_dict(tiny, {**changes, "optim": {"name": name}})
    program = build(config)
    start = jax.jit(functools.partial(initial_state, config, program))()
    step = jax.jit(functools.partial(train_step, program))
    state, metrics = step(step(start, batch)[0], batch)
    loss = lambda p: program.forward(p, batch)[0].sum()
    router = jax.jit(jax.grad(loss))(state.params)["blocks"]["experts"]["router"]["w"]
    assert jnp.abs(router).max() > 0
    chex.assert_tree_all_finite((state.params, metrics))
    moved = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), state.params, start.params)
    assert all(float(m) > 0 for m in jax.tree.leaves(moved["blocks"]["experts"]))


def orthogonal(g):
    """Five iterations of Newton-Schulz on one matrix, in NumPy, float64."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g / np.linalg.norm(g)
    flip = x.shape[0] > x.shape[1]
    x = x.T if flip else x
    for _ in range(5):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x.T if flip else x


def test_muon_orthogonalises_each_expert_of_each_layer_on_its_own(tiny):
    changes = {"optim": {"name": "muon", "clip": 0.0}}
    config = replace_from_dict(experts_of(tiny), changes)
    program, rng = build(config), np.random.default_rng(0)
    shapes = jax.eval_shape(program.init, jax.random.key(0))
    draw = lambda s: jnp.asarray(rng.normal(size=s.shape), s.dtype)
    params, grads = (jax.tree.map(draw, shapes) for _ in range(2))
    rates = {"learning_rate": jnp.float32(1), "weight_decay": jnp.float32(0)}
    update = jax.jit(functools.partial(program.tx.update, **rates))
    updates, _ = update(grads, program.tx.init(params), params)
    for name in ("up", "down"):
        g, u = (t["blocks"]["experts"][name]["w"] for t in (grads, updates))
        for at in np.ndindex(2, 4):
            expected = -0.2 * max(g.shape[2:]) ** 0.5
            expected = expected * orthogonal(np.asarray(g[at], np.float64))
            np.testing.assert_allclose(u[at], expected, atol=1e-3)


@pytest.mark.parametrize("preset", ["modern", "gpt2"])
def test_parameters_are_named_and_the_output_starts_as_the_dense_one(preset, key):
    config = model_config(preset, "tiny", vocab=64, experts=4, activation="swiglu")
    shapes = jax.eval_shape(make_model(config).init, key)["blocks"]
    own = {name: part["w"].shape for name, part in shapes["experts"].items()}
    d, f = config.width, config.hidden
    into = (config.depth, 4, d, f)
    down = (config.depth, 4, f, d)
    assert own == {
        "router": (config.depth, d, 4),
        "up": into,
        "gate": into,
        "down": down,
    }
    assert "mlp" not in shapes
    if config.bias:
        assert shapes["experts"]["down"]["b"].shape == (config.depth, 4, d)
        assert shapes["experts"]["up"]["b"].shape == (config.depth, 4, f)


def test_stats_of_a_model_with_experts(tiny, batch, key):
    model = make_model(experts_of(tiny, balance=0.5).model)
    params = jax.jit(model.init)(key)
    losses, stats = jax.jit(model.forward)(params, batch)
    assert losses.shape == (8, 32)
    assert stats.load.shape == (2, 4)
    np.testing.assert_allclose(stats.load.sum(1), 1.0, rtol=1e-6)
    assert 0.5 <= float(stats.penalty) < 1.0
    assert 0.0 <= float(stats.dropped) < 1.0


def test_remat_changes_no_number_of_experts(tiny, batch, key):
    grads = []
    for remat in (False, True):
        model = make_model(experts_of(tiny, remat=remat).model)
        params = jax.tree.map(lambda x: x + 0.02, jax.jit(model.init)(key))
        loss = lambda p, f=model.forward: f(p, batch)[0].mean()
        grads.append(jax.jit(jax.grad(loss))(params))
    chex.assert_trees_all_close(*grads, rtol=1e-4, atol=1e-6)


def test_a_dense_model_has_no_stats_of_experts(program, state, batch):
    _, stats = jax.eval_shape(program.forward, state.params, batch)
    assert (stats.penalty, stats.load, stats.dropped) == (None, None, None)


def test_bfloat16_routes_in_float32(tiny, batch, key):
    config = dataclasses.replace(experts_of(tiny).model, dtype="bfloat16")
    model = make_model(config)
    params = jax.jit(model.init)(key)
    _, stats = jax.jit(model.forward)(params, batch)
    assert stats.features.dtype == jnp.bfloat16
    assert stats.penalty.dtype == stats.load.dtype == jnp.float32
