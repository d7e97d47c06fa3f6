import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from uets_jax.config import MeshConfig, OptimConfig
from uets_jax.errors import UserError
from uets_jax.measure.jaxpr import count
from uets_jax.measure.scopes import branch
from uets_jax.optim.gate import GateSettings, init_theta
from uets_jax.optim.gated import gate_metrics, scale_by_gated_rules
from uets_jax.optim.gated_state import GatedState
from uets_jax.optim.rules import rule
from uets_jax.optim.stored import load_theta
from uets_jax.train.mesh import make_mesh

RATE = 0.05


def theta_of(key, settings=None, sure=False, noise=0.0):
    """A first theta; `sure` of the nominal rule, or noisy."""
    theta = init_theta(key, settings)
    if sure:
        bias = jnp.where(theta.role_bias > 1, 60.0, theta.role_bias)
        theta = theta._replace(role_bias=bias)
    rng = np.random.default_rng(0)
    stir = lambda x: x + noise * jnp.asarray(rng.normal(size=x.shape), x.dtype)
    return jax.tree.map(stir, theta)


@pytest.fixture(scope="module")
def theta():
    return theta_of(jax.random.key(1), noise=0.5)


@pytest.fixture(scope="module")
def gated(theta, about):
    return scale_by_gated_rules(theta, **about, weight_decay=0.1)


def run(tx, params, draw, steps=3, extras=None):
    """(params, state) after steps of size RATE with drawn gradients."""

    @jax.jit
    def step(params, state, grads, given):
        updates, state = tx.update(grads, state, params, **given)
        updates = jax.tree.map(lambda u: -RATE * u, updates)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for seed in range(steps):
        given = extras(seed) if extras else {"value": jnp.float32(2.0)}
        params, state = step(params, state, draw(seed + 1, params), given)
    return params, state


def gated_state(state):
    is_gated = lambda x: isinstance(x, GatedState)
    return next(filter(is_gated, jax.tree.leaves(state, is_leaf=is_gated)))


@pytest.mark.parametrize("nominal", ["muon", "adamw"])
def test_a_gate_that_is_sure_is_the_nominal_rule(nominal, small, about, draw, key):
    rest = {"muon": {"adam_ratio": 3.0}, "adamw": {"rest_ratio": 3.0}}[nominal]
    s = GateSettings(nominal=nominal, **rest)
    config = OptimConfig(
        name=nominal, learning_rate=RATE, weight_decay=0.1, clip=0.0, **rest
    )
    plain = rule(config, about["matrices"], about["decayed"])
    expected, state = small, plain.init(small)
    for seed in range(4):
        updates, state = plain.update(draw(seed + 1, small), state, expected)
        expected = optax.apply_updates(expected, updates)
    tx = scale_by_gated_rules(
        theta_of(key, s, sure=True), **about, weight_decay=0.1, settings=s
    )
    ours, _ = run(tx, small, draw, 4)
    chex.assert_trees_all_close(ours, expected, rtol=1e-5, atol=1e-6)
    none = scale_by_gated_rules(None, **about, weight_decay=0.1, settings=s)
    ours, state = run(none, small, draw, 4)
    chex.assert_trees_all_close(ours, expected, rtol=1e-6, atol=1e-6)
    assert gate_metrics(state) == {}


def test_weights_can_be_the_shipped_ones_and_must_fit_the_settings(small, about, key):
    stored = load_theta()
    given = [
        scale_by_gated_rules("default", **about),
        scale_by_gated_rules(stored, **about),
        scale_by_gated_rules(stored.theta, **about, settings=stored.settings),
    ]
    steps = [tx.update(small, tx.init(small), small)[0] for tx in given]
    chex.assert_trees_all_equal(*steps)
    other = init_theta(key, GateSettings(rules=("adam", "muon")))
    with pytest.raises(UserError, match="weights: output: shape"):
        scale_by_gated_rules(other)


def test_without_theta_axes_are_checked_too(small, about):
    wrong = {**about, "matrices": lambda p: jax.tree.map(lambda x: ((0,), (7,)), p)}
    with pytest.raises(UserError, match=r"axes \(\(0,\), \(7,\)\) do not fit shape"):
        scale_by_gated_rules(None, **wrong).init(small)


def test_without_theta_there_is_no_gate_in_the_program(small, about, draw):
    config = OptimConfig(name="muon", learning_rate=1.0, weight_decay=0.1, clip=0.0)
    plain = rule(config, about["matrices"], about["decayed"])
    none = scale_by_gated_rules(None, **about, weight_decay=0.1)
    cost = lambda tx: (
        count(jax.make_jaxpr(tx.update)(small, tx.init(small), small))
        .total()["forward_backward"]
        .total
    )
    assert cost(none) <= cost(plain)


def test_it_begins_near_the_nominal_rule(small, about, draw, key):
    none, _ = run(scale_by_gated_rules(None, **about), small, draw)
    tx = scale_by_gated_rules(init_theta(key), **about)
    ours, state = run(tx, small, draw)
    moved = lambda a: optax.tree.norm(jax.tree.map(jnp.subtract, a, small))
    apart = optax.tree.norm(jax.tree.map(jnp.subtract, ours, none))
    assert float(apart / moved(none)) < 0.1
    metrics = gate_metrics(state)
    weights = [float(metrics[f"gate_{r}"]) for r in GateSettings().rules]
    assert sum(weights) == pytest.approx(1, abs=1e-5)
    assert metrics["gate_step"] == metrics["gate_decay"] == 1
    assert all(jnp.ndim(x) == 0 for x in metrics.values())


def test_it_composes_as_optax_transformations_do(gated, small, draw):
    plain, _ = run(gated, small, draw)
    everything = lambda p: jax.tree.map(lambda _: True, p)
    label = lambda p: {k: "a" if k == "blocks" else "b" for k in p}
    for tx in [
        optax.chain(optax.identity(), gated),
        optax.masked(gated, everything),
        optax.partition({"one": gated}, lambda p: jax.tree.map(lambda _: "one", p)),
    ]:
        chex.assert_trees_all_close(run(tx, small, draw)[0], plain, rtol=1e-6)
    halves, _ = run(
        optax.partition({"a": gated, "b": optax.adam(1.0)}, label), small, draw
    )
    chex.assert_tree_all_finite(halves)
    twice = optax.MultiSteps(gated, 2).gradient_transformation()
    chex.assert_trees_all_equal(run(twice, small, draw, 1)[0], small)
    assert not np.array_equal(
        run(twice, small, draw, 2)[0]["head"]["w"], small["head"]["w"]
    )


def test_masked_leaves_pass_through(gated, small, draw):
    blocks = lambda p: {k: k == "blocks" for k in p}
    tx, grads = optax.masked(gated, blocks), draw(1)
    updates, _ = tx.update(grads, tx.init(small), small)
    chex.assert_trees_all_equal(updates["head"], grads["head"])
    assert not np.array_equal(
        updates["blocks"]["mlp"]["up"]["w"], grads["blocks"]["mlp"]["up"]["w"]
    )


def test_hyperparameters_can_be_injected(theta, about, small, draw):
    def make(weight_decay):
        return scale_by_gated_rules(theta, **about, weight_decay=weight_decay)

    tx = optax.inject_hyperparams(make)(weight_decay=0.1)
    ours, _ = run(tx, small, draw)
    chex.assert_trees_all_close(ours, run(make(0.1), small, draw)[0], rtol=1e-5)


def test_none_leaves_and_empty_trees(gated, small, draw):
    own = {**small, "frozen": None}
    ours, _ = run(gated, own, draw)
    assert ours["frozen"] is None
    assert run(gated, {}, draw)[0] == {}
    chex.assert_trees_all_close(ours["head"], run(gated, small, draw)[0]["head"])


def test_update_needs_params_and_takes_any_extra(gated, small, draw):
    with pytest.raises(ValueError, match="params"):
        gated.update(small, gated.init(small))
    gated.update(draw(1), gated.init(small), small, other=1)


def test_extras_are_traced_and_decay_wins_over_the_constant(gated, small, draw):
    def extras(seed):
        share = jnp.float32(seed / 3)
        zero = jnp.float32(0)
        return {"progress": share, "weight_decay": zero, "learning_rate": 1 - share}

    ours, state = run(gated, small, draw, extras=extras)
    assert float(gated_state(state).peak) == 1
    other, _ = run(gated, small, draw, extras=lambda seed: {})
    assert not np.allclose(ours["head"]["w"], other["head"]["w"])


@pytest.mark.parametrize("where", ["gradient", "value"])
def test_a_step_that_is_not_finite_changes_nothing_but_a_count(
    where, gated, small, draw
):
    _, state = run(gated, small, draw)
    grads, value = draw(9), jnp.float32(2.0)
    if where == "gradient":
        grads["head"]["w"] = grads["head"]["w"].at[0, 0].set(jnp.nan)
    else:
        value = jnp.float32(jnp.inf)
    updates, after = jax.jit(gated.update)(grads, state, small, value=value)
    assert not any(x.any() for x in jax.tree.leaves(updates))
    assert int(after.watch.skipped) == 1
    back = after._replace(watch=state.watch)
    chex.assert_trees_all_equal(back, state)
    assert int(gate_metrics((after,))["gate_skipped"]) == 1


def test_a_rising_loss_brings_the_nominal_rule_back(theta, about, small, draw):
    loud = theta._replace(role_bias=theta.role_bias.at[:, 4].set(1.5))
    tx = scale_by_gated_rules(loud, **about)
    losses = lambda seed: {"value": jnp.float32(3.0 if seed < 14 else 30.0)}
    _, calm = run(tx, small, draw, 14, losses)
    _, wild = run(tx, small, draw, 16, losses)
    assert int(calm.watch.reverted) == 0
    assert int(wild.watch.reverted) == 2
    assert float(gate_metrics(calm)["gate_step"]) > 2
    assert float(gate_metrics(wild)["gate_step"]) == 1
    assert float(gate_metrics(wild)["gate_lion"]) == 0


def test_layers_of_a_stack_are_decided_apart(gated, small, draw):
    _, state = run(gated, small, draw)
    hidden = state.hidden["blocks"]["mlp"]["up"]["w"]
    assert hidden.shape == (2, 8)
    assert float(jnp.abs(hidden[0] - hidden[1]).max()) > 1e-3


def test_a_skipped_layer_stands_still_and_its_moments_go_on(theta, about, small, draw):
    s = GateSettings(skip=True)
    always = theta._replace(
        role_bias=theta.role_bias.at[1, -1].set(99.0), output=0 * theta.output
    )
    tx = scale_by_gated_rules(always, **about, weight_decay=0.1, settings=s)
    ours, state = run(tx, small, draw)
    up = lambda tree: tree["blocks"]["mlp"]["up"]["w"]
    np.testing.assert_array_equal(up(ours), up(small))
    assert float(jnp.abs(up(state.mu)).max()) > 0
    assert float(jnp.abs(ours["head"]["w"] - small["head"]["w"]).max()) > 0
    frozen = 2 * (20 + 24) / (2 * (20 + 24 + 4) + 48)
    assert float(gate_metrics(state)["gate_frozen"]) == pytest.approx(frozen)


def test_decisions_hold_until_the_next_ones(theta, about, small, draw):
    s = GateSettings(every=3)
    tx = scale_by_gated_rules(theta, **about, settings=s)
    states = [run(tx, small, draw, n)[1] for n in (1, 3, 4)]
    first, third, fourth = (s.held["head"]["w"] for s in states)
    np.testing.assert_array_equal(first, third)
    assert float(jnp.abs(fourth - first).max()) > 1e-5
    assert [int(gate_metrics(s)["taken/gate"]) for s in states] == [1, 0, 1]
    assert "taken/gate" not in gate_metrics(run(tx, {}, draw)[1])


def test_the_nominal_rule_takes_the_steps_between_decisions(theta, about, small, draw):
    s = GateSettings(every=3, between="nominal")
    tx = scale_by_gated_rules(theta, **about, settings=s)
    states = [run(tx, small, draw, n)[1] for n in (1, 2, 4)]
    weights = [gate_metrics(s) for s in states]
    assert [float(w["gate_lion"]) > 1e-3 for w in weights] == [True, False, True]
    assert float(weights[1]["gate_adam"] + weights[1]["gate_muon"]) == pytest.approx(1)
    steps = [float(w["gate_step"]) for w in weights]
    assert steps[0] == steps[1]  # multipliers hold
    with pytest.raises(UserError, match=r"gate\.between: 'x'"):
        GateSettings(between="x")


def test_what_is_kept_between_decisions_can_be_learned(about, small, draw):
    """All kept is `held`, nothing kept is `nominal`, a half lies midway."""
    n = 2  # the first decides, the second doesn't

    def mix(between, keep=None):
        s = GateSettings(every=3, between=between)
        theta = theta_of(jax.random.key(1), s, noise=0.3)
        if keep is not None:
            fixed = lambda x: x.at[..., -1].set(0.0)
            names = ("output", "direct", "role_progress")
            theta = theta._replace(**{k: fixed(getattr(theta, k)) for k in names})
            theta = theta._replace(role_bias=theta.role_bias.at[:, -1].set(keep))
        _, state = run(scale_by_gated_rules(theta, **about, settings=s), small, draw, n)
        return {k: float(v) for k, v in gate_metrics(state).items()}

    learned = {keep: mix("learned", keep) for keep in (-99.0, 0.0, 99.0)}
    half = {k: (learned[-99.0][k] + learned[99.0][k]) / 2 for k in learned[0.0]}
    assert learned[-99.0]["gate_lion"] == 0 < 0.01 < learned[99.0]["gate_lion"]
    assert learned[0.0] == pytest.approx(half, abs=1e-6)
    nominal = {k: learned[-99.0][k] for k in ("gate_adam", "gate_muon")}
    assert nominal == pytest.approx({k: mix("nominal")[k] for k in nominal}, abs=1e-6)


def test_a_hybrid_costs_less_between_decisions(theta, about, small):
    def cost(every, taken, calls):
        s = GateSettings(every=every)
        tx = scale_by_gated_rules(theta, **about, settings=s, branch=branch)
        found = count(jax.make_jaxpr(tx.update)(small, tx.init(small), small))
        return found.total({"gate": taken}, calls)["forward_backward"].total

    always, tenth = cost(1, 0, 10), cost(10, 1, 10)
    never = cost(10, 0, 10)
    assert never < tenth < always
    assert (tenth - never) < 0.15 * (always - never)


def test_theta_can_be_vmapped_and_has_a_gradient(about, small, draw, key):
    """By finite differences, through three steps; also where gradients are zero."""
    s = GateSettings(rules=("adam", "muon", "momentum", "mlp"))
    theta = theta_of(key, s, noise=0.3)
    target = draw(7)

    def loss(theta, params):
        tx = scale_by_gated_rules(theta, **about, weight_decay=0.1, settings=s)
        square = lambda p: sum(
            jnp.square(a - b).sum()
            for a, b in zip(jax.tree.leaves(p), jax.tree.leaves(target), strict=True)
        )

        def step(carry, _):
            params, state = carry
            value, grads = jax.value_and_grad(square)(params)
            updates, state = tx.update(grads, state, params, value=value)
            updates = jax.tree.map(lambda u: -RATE * u, updates)
            return (optax.apply_updates(params, updates), state), value

        carry, _ = jax.lax.scan(step, (params, tx.init(params)), length=3)
        return square(carry[0])

    grad = jax.jit(jax.grad(loss))
    slope = grad(theta, small)
    chex.assert_tree_all_finite(slope)
    chex.assert_tree_all_finite(grad(theta, target))  # at the minimum: zero gradients
    rng = np.random.default_rng(3)
    way = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), theta)
    eps = 3e-3
    at = lambda e: jax.tree.map(lambda t, w: t + e * w, theta, way)
    pairs = jax.tree.map(lambda a, b: jnp.stack([a, b]), at(eps), at(-eps))
    high, low = jax.jit(jax.vmap(loss, (0, None)))(pairs, small)
    along = optax.tree.vdot(slope, way)
    np.testing.assert_allclose(along, (high - low) / (2 * eps), rtol=0.05, atol=0.02)


def test_eight_devices_take_the_same_steps(gated, small, draw):
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    split = {(2, 4, 5): (None, "fsdp"), (6, 4): ("tensor", "fsdp"), (4, 6): ("fsdp",)}

    def place(x):
        spec = PartitionSpec(*split.get(x.shape, ()))
        return jax.device_put(x, NamedSharding(mesh, spec))

    spread = jax.tree.map(place, small)
    ours, state = run(gated, spread, lambda *a: jax.tree.map(place, draw(*a)))
    assert len(ours["head"]["w"].sharding.device_set) == 8
    alone, _ = run(gated, small, draw)
    chex.assert_trees_all_close(ours, alone, rtol=1e-4, atol=1e-5)
    assert int(state.count) == 3


def test_it_finds_the_minimum_of_a_small_problem(about, small, draw, key):
    target = draw(7)
    tx = scale_by_gated_rules(init_theta(key), **about)

    def step(carry, i):
        params, state = carry
        grads = jax.tree.map(jnp.subtract, params, target)
        value = optax.tree.norm(grads)
        updates, state = tx.update(grads, state, params, value=value, progress=i / 200)
        updates = jax.tree.map(lambda u: -0.2 * (1 - i / 200) * u, updates)
        return (optax.apply_updates(params, updates), state), value

    carry = small, tx.init(small)
    _, values = jax.jit(lambda c: jax.lax.scan(step, c, jnp.arange(200.0)))(carry)
    assert float(values[-1]) < 0.05 * float(values[0])


def test_settings_are_values(theta, about, small, draw):
    s = dataclasses.replace(GateSettings(), cautious=True)
    assert s == GateSettings(cautious=True)
    tx = scale_by_gated_rules(theta, **about, weight_decay=5.0, settings=s)
    plain = scale_by_gated_rules(theta, **about, weight_decay=5.0)
    p, q = run(tx, small, draw, 1)[0], run(plain, small, draw, 1)[0]
    size = lambda t: float(jnp.abs(t["head"]["w"]).mean())
    assert size(p) > size(q)
