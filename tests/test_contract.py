"""The laws of components and update rules: one table, every part in it."""

import functools
import typing

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from uets_jax.component import Component
from uets_jax.config import MeshConfig, OptimConfig
from uets_jax.curriculum.adaptive import adaptive
from uets_jax.curriculum.difficulty import running_ranks
from uets_jax.curriculum.progress import learning_progress
from uets_jax.curriculum.scaling import scaling
from uets_jax.models.axes import hidden_matrix, is_matrix, layer_axis, map_axes, role
from uets_jax.models.presets import model_config
from uets_jax.models.transformer import make_model
from uets_jax.optim.average import average
from uets_jax.optim.gate import GateSettings, init_theta
from uets_jax.optim.gated import scale_by_gated_rules
from uets_jax.optim.guard import guard
from uets_jax.optim.lstm import init_lstm, scale_by_lstm
from uets_jax.optim.mlp import init_mlp, scale_by_learned_mlp
from uets_jax.optim.optimizer import learned
from uets_jax.optim.rewarm import rewarm
from uets_jax.optim.rules import rule
from uets_jax.selection import buffer
from uets_jax.selection.buckets import buckets
from uets_jax.selection.dedup import deduplicator
from uets_jax.selection.minhash import DedupConfig
from uets_jax.selection.novelty import NoveltyConfig, novelty
from uets_jax.selection.policy import bandit
from uets_jax.selection.reservoir import reservoir
from uets_jax.selection.scores import RowScores
from uets_jax.selection.semantic import SemanticConfig, semantic
from uets_jax.selection.switch import switch
from uets_jax.selection.threshold import threshold
from uets_jax.train import checkpoint, saver
from uets_jax.train.mesh import make_mesh
from uets_jax.uncertainty.fisher import FisherConfig, fisher
from uets_jax.uncertainty.laplace import LaplaceConfig, laplace

MODEL = make_model(model_config("modern", "tiny", vocab=64))


def running_mean() -> Component:
    """The smallest component with state: the mean of all calls so far."""

    def apply(state, scores):
        calls, total = state
        after = (calls + 1, total + scores.mean())
        return after[1] / after[0], after

    zero = lambda params: (jnp.zeros((), jnp.int32), jnp.zeros(()))
    return Component(init=zero, apply=apply)


def of_rule(name: str) -> Component:
    """An update rule as a component: (state, grads, params) -> (updates, state)."""
    tx = rule(
        OptimConfig(name=name, soap_max_dim=32),  # a longer side's factor is singular
        functools.partial(map_axes, hidden_matrix),
        functools.partial(map_axes, is_matrix),
    )
    return as_component(tx)


def of_lstm() -> Component:
    """The learned coordinatewise rule with fresh weights."""
    return as_component(scale_by_lstm(init_lstm(jax.random.key(1))))


def of_gate(**changes) -> Component:
    """A gated rule as a component, its theta far from where it begins."""
    settings = GateSettings(**changes)
    rng = np.random.default_rng(0)
    stir = lambda x: x + jnp.asarray(0.3 * rng.normal(size=x.shape), x.dtype)
    of = lambda fn: functools.partial(map_axes, fn)
    return as_component(
        scale_by_gated_rules(
            jax.tree.map(stir, init_theta(jax.random.key(0), settings)),
            matrices=of(hidden_matrix),
            decayed=of(is_matrix),
            layer_axis=of(layer_axis),
            roles=of(role),
            weight_decay=0.1,
            settings=settings,
        )
    )


def as_component(tx: optax.GradientTransformation) -> Component:
    """(state, grads, params) -> (updates, state), of one leaf of each kind."""
    tx = optax.with_extra_args_support(tx)
    return Component(
        lambda params: tx.init(few(params)),
        lambda state, grads, params: tx.update(grads, state, params),
    )


def of_mlp() -> Component:
    """The learned network on matrices."""
    matrices = functools.partial(map_axes, hidden_matrix)
    theta = init_mlp(jax.random.key(0))
    return as_component(scale_by_learned_mlp(theta, matrices=matrices))


PLAIN = [
    name
    for name in typing.get_args(typing.get_type_hints(OptimConfig)["name"])
    if name != "learned"
]
RULES = {
    **{name: functools.partial(of_rule, name) for name in PLAIN},
    "average": lambda: as_component(optax.chain(optax.sgd(0.1), average(0.1))),
    "lstm": of_lstm,
    "gated": of_gate,
    "gated_every_2": lambda: of_gate(every=2, skip=True, cautious=True),
    "gated_mlp": lambda: of_gate(rules=("adam", "muon", "mlp"), ahead=True),
    "learned": lambda: as_component(
        learned(0.1, matrices=functools.partial(map_axes, hidden_matrix))
    ),
    "learned_mlp": of_mlp,
}


def seeded(part: Component) -> Component:
    """The part with a seed in the place of its key: the laws use an input twice."""
    apply = lambda state, *given: part.apply(
        state, *given[:-1], jax.random.key(given[-1])
    )
    return Component(part.init, apply)


def offer_and_draw() -> Component:
    """The buffer as a component: merges four candidates, draws two."""

    def apply(state, keys, rows, now, key):
        state = buffer.merge(state, keys, rows, now, buffer.aged(state, now, 0.1))
        return buffer.take(state, 2, now, None, 0.5, key)

    row = {"tokens": jax.ShapeDtypeStruct((8,), jnp.int32)}
    return seeded(Component(lambda params: buffer.init(6, row), apply))


def rewarming() -> Component:
    """The warm-up of fresh entries, where every other one is fresh since step 1."""
    part = rewarm(5)

    def init(params):
        mark = lambda born: jnp.where(jnp.arange(born.size) % 2, 1, born)
        return jax.tree.map(mark, part.init(params))

    return Component(init, part.apply)


def candidates():
    """Four rows with their keys, a step and a seed."""
    rows = {"tokens": jnp.arange(32, dtype=jnp.int32).reshape(4, 8)}
    return jnp.linspace(0.0, 1.0, 4), rows, jnp.asarray(3), jnp.asarray(0)


def params(dtype=jnp.float32):
    shapes = jax.eval_shape(MODEL.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), dtype), shapes)


def few(params):
    """One leaf of each kind: what an update rule tells apart."""
    blocks = params["blocks"]
    attention = {k: blocks["attention"][k] for k in ("query", "value_mix")}
    kept = {"attention": attention, "attention_norm": blocks["attention_norm"]}
    kept["mlp"] = {"down": blocks["mlp"]["down"]}
    return {"blocks": kept, "embed": params["embed"], "head": params["head"]}


def copies():
    """Four rows, two of them equal, and their lengths."""
    tokens = jnp.arange(24).reshape(3, 8)[jnp.array([0, 1, 0, 2])]
    return tokens, jnp.full((4,), 8)


def bins_and_losses():
    return jnp.array([0, 1, 1, 2, 0, 1]), jnp.linspace(1.0, 3.0, 6)


def bins_and_scores():
    return jnp.array([0, 1, 1, 2]), RowScores(*jnp.linspace(1.0, 3.0, 28).reshape(7, 4))


def by_products():
    """Of a head with three features and four outputs, and the head."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    each = jnp.ones((2, 8))
    targets = jnp.zeros((2, 8), jnp.int32)
    return draw(2, 8, 3), each, 0.4 * each, targets, draw(3, 4)


def tokens_and_seed():
    return params(), jnp.arange(16).reshape(2, 8), jnp.asarray(0)


def gradients():
    return few(params()), few(params())


# name: (component, its inputs after the state)
CASES = {
    "running_mean": (running_mean, lambda: (jnp.linspace(0.0, 1.0, 8),)),
    "buckets": (lambda: buckets(4), bins_and_scores),
    "bandit": (
        lambda: seeded(bandit(3, period=1)),
        lambda: (jnp.ones(()), jnp.asarray(0)),
    ),
    "switch": (lambda: switch(probe=1, every=2), lambda: (jnp.ones(()),) * 2),
    "deduplicator": (lambda: deduplicator(DedupConfig(slots=16)), copies),
    "novelty": (
        lambda: novelty(NoveltyConfig(order=3, slots=64)),
        lambda: (copies()[0], jnp.ones((4, 8), bool)),
    ),
    "semantic": (
        lambda: semantic(8, SemanticConfig(size=16)),
        lambda: (copies()[0] / 24, jnp.ones(4, bool)),
    ),
    "threshold": (threshold, lambda: (jnp.linspace(0.0, 1.0, 8), 0.2)),
    "reservoir": (
        lambda: seeded(reservoir(3, jax.ShapeDtypeStruct((8,), jnp.int32))),
        lambda: (copies()[0], jnp.ones(4, bool), jnp.asarray(0)),
    ),
    "buffer": (offer_and_draw, candidates),
    "running_ranks": (
        lambda: running_ranks(16),
        lambda: (jnp.array([1.0, 3.0, jnp.nan, 2.0]),),
    ),
    "learning_progress": (lambda: learning_progress(3), bins_and_losses),
    "adaptive": (lambda: adaptive(3), lambda: (*bins_and_losses(), 0.3, 0.2, 2.0)),
    "scaling": (
        lambda: scaling(3, refit_every=2),
        lambda: (*bins_and_losses(), jnp.full(6, 2048.0), jnp.full(3, 1 / 3)),
    ),
    "laplace": (lambda: laplace(LaplaceConfig(3, 4, every=2)), by_products),
    "fisher": (
        lambda: seeded(fisher(MODEL.logits, FisherConfig(every=2))),
        tokens_and_seed,
    ),
    "rewarm": (rewarming, lambda: (params(), jnp.asarray(2))),
    "guard": (lambda: guard(spike=6.0), lambda: (jnp.ones(()),) * 3),
    **{name: (make, gradients) for name, make in RULES.items()},
}


ATOL = {"soap": 1e-3}  # eigenvectors move by rounding over the gap of eigenvalues


def check_close(one, other, atol: float) -> None:
    """Equal but for the order of operations; of bfloat16 a last bit may differ."""

    def check(a, b):
        rtol = 1e-2 if a.dtype == jnp.bfloat16 else 1e-4
        chex.assert_trees_all_close(a, b, rtol=rtol, atol=atol)

    chex.assert_trees_all_equal_shapes_and_dtypes(one, other)
    jax.tree.map(check, one, other)


def check_laws(part: Component, inputs: tuple, atol: float = 1e-5) -> None:
    """Stable state, jit equals plain, deterministic, also inside a scan."""
    state = part.init(params())
    out, after = part.apply(state, *inputs)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, after)
    compiled = jax.jit(part.apply)
    first, second = compiled(state, *inputs), compiled(state, *inputs)
    chex.assert_trees_all_equal(first, second)
    check_close(first, (out, after), atol)
    step = lambda s, _: (part.apply(s, *inputs)[1], None)
    looped, _ = jax.lax.scan(step, state, length=2)
    twice = compiled(compiled(state, *inputs)[1], *inputs)[1]
    check_close(looped, twice, atol)


@pytest.mark.parametrize("name", CASES)
def test_laws(name):
    make, inputs = CASES[name]
    check_laws(make(), inputs(), ATOL.get(name, 1e-5))


@pytest.mark.parametrize("name", CASES)
def test_a_state_that_was_saved_and_restored_changes_nothing(name, tmp_path):
    make, inputs = CASES[name]
    part, given = make(), inputs()
    state = jax.jit(part.apply)(part.init(params()), *given)[1]
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
    path = saver.save(tmp_path, {"s": state}, {"step": 1})
    restored, _ = checkpoint.load(path, lambda record: {"s": jax.tree.map(like, state)})
    run = jax.jit(part.apply)
    chex.assert_trees_all_equal(run(restored["s"], *given), run(state, *given))


@pytest.mark.parametrize("name", CASES)
def test_a_state_keeps_its_sharding(name):
    make, inputs = CASES[name]
    part, mesh = make(), make_mesh(MeshConfig(data=8))
    everywhere = NamedSharding(mesh, PartitionSpec())
    state = jax.device_put(part.init(params()), everywhere)
    given = jax.device_put(inputs(), everywhere)
    _, after = jax.jit(part.apply)(state, *given)
    kept = jax.tree.map(
        lambda a, b: a.sharding.is_equivalent_to(b.sharding, a.ndim), state, after
    )
    assert all(jax.tree.leaves(kept))


@pytest.mark.parametrize("name", RULES)
def test_a_rule_initialises_from_shapes_alone(name):
    part = RULES[name]()
    shapes = jax.eval_shape(part.init, params())
    again = jax.eval_shape(part.init, jax.eval_shape(params))
    chex.assert_trees_all_equal_shapes_and_dtypes(shapes, again)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_keeps_the_dtype_of_bfloat16_parameters(name):
    part, low = RULES[name](), few(params(jnp.bfloat16))
    state = jax.jit(part.apply)(part.init(low), low, low)[1]
    updates, after = jax.jit(part.apply)(state, low, low)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, low)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, part.init(low))
    assert float(optax.tree.norm(updates)) > 0


GOOD = running_mean()
BAD = {
    "widens its state": GOOD._replace(
        apply=lambda s, x: (x.mean(), (s[0] + 1.0, s[1]))
    ),
    "grows its state": GOOD._replace(
        apply=lambda s, x: (x.mean(), (s[0], jnp.stack([s[1], x.mean()])))
    ),
    "renames its state": GOOD._replace(apply=lambda s, x: (x.mean(), list(s))),
}


@pytest.mark.parametrize("fault", BAD)
def test_the_laws_catch_a_component_that(fault):
    with pytest.raises((AssertionError, TypeError, ValueError)):
        check_laws(BAD[fault], (jnp.ones(4),))
