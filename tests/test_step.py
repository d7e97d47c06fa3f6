import dataclasses
import functools
import itertools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from uets_jax.build import build, initial_state
from uets_jax.component import Component, Selection
from uets_jax.config import replace_from_dict
from uets_jax.curriculum.length import cut
from uets_jax.models.head import cross_entropy, raw_logits
from uets_jax.models.presets import model_config
from uets_jax.models.transformer import Transformer
from uets_jax.step import Program, init_state, train_step
from uets_jax.types import IGNORED, Hypers, TrainState


@pytest.fixture(scope="module")
def step(program):
    return jax.jit(functools.partial(train_step, program))


def test_lowered_text_with_empty_slots_equals_a_hand_written_step(
    tiny, program, state, batch
):
    module, cap = Transformer(tiny.model), tiny.model.softcap

    def by_hand(state, pool):
        n = jnp.maximum((pool.targets != IGNORED).sum(), 1).astype(jnp.float32)

        def loss_fn(params):
            inputs = (pool.tokens, pool.segments)
            out = module.apply({"params": params}, *inputs)
            raw = raw_logits(out.features, out.head)
            return cross_entropy(cap, raw, pool.targets).sum() / n

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        rate = program.schedule(state.hypers, state.step)
        decay = state.hypers.weight_decay
        extra = {"value": loss, "learning_rate": rate, "weight_decay": decay}
        updates, opt = program.tx.update(grads, state.opt, state.params, **extra)
        params = optax.apply_updates(state.params, updates)
        metrics = {
            "loss": loss,
            "grad_norm": optax.tree.norm(grads),
            "learning_rate": rate,
            "targets": (pool.targets != IGNORED).sum(),
        }
        after = state._replace(step=state.step + 1, params=params, opt=opt)
        return after, metrics

    text = lambda fn: jax.jit(fn).lower(state, batch).as_text()
    ours = text(functools.partial(train_step, program))
    theirs = text(by_hand)
    plain = lambda t: re.sub(r"jit_\w+", "jit", re.sub(r"@\w+", "@f", t))
    assert plain(ours) == plain(theirs)


def test_a_step_learns_and_counts(step, state, batch):
    losses = []
    for _ in range(8):
        state, metrics = step(state, batch)
        chex.assert_tree_all_finite(metrics)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0] - 0.05
    assert int(state.step) == 8
    assert int(metrics["targets"]) == 8 * 31


def test_a_step_keeps_structure_shapes_and_dtypes(step, state, batch):
    after, _ = step(state, batch)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, after)


def test_traced_hyper_parameters_share_one_executable(program, state, batch):
    chex.clear_trace_counter()
    once = chex.assert_max_traces(lambda s, b: train_step(program, s, b), n=1)
    step = jax.jit(once)
    ends = []
    for rate in (1e-3, 1e-2):
        hypers = state.hypers._replace(learning_rate=jnp.float32(rate))
        after, metrics = step(state._replace(hypers=hypers), batch)
        assert metrics["learning_rate"] == pytest.approx(rate / 5)  # warm-up of 5
        ends.append(after.params["head"]["w"])
    assert float(jnp.abs(ends[1]).max()) > 5 * float(jnp.abs(ends[0]).max())


def counting(apply):
    """A component that counts its calls and answers `apply(*inputs)`."""
    return Component(
        init=lambda params: jnp.zeros((), jnp.int32),
        apply=lambda state, *inputs: (apply(*inputs), state + 1),
    )


def every_other(weights=None):
    """A selection of the even rows that counts its calls and tells what it saw."""

    def choose(state, pool, moment):
        rows = jnp.arange(0, pool.ids.shape[0], 2)
        batch = jax.tree.map(lambda x: x[rows], pool)
        told = {"asset": moment.assets, "progress": moment.progress}
        return batch, weights, told, state + 1

    def observe(state, batch, losses, stats, moment):
        surprise = losses.mean() / stats.entropy.mean()
        told = {"seen": batch.ids.sum(), "surprise": surprise}
        return told, state + 10

    return Selection(lambda params: jnp.zeros((), jnp.int32), choose, observe)


def start_of(program):
    hypers = Hypers(*(jnp.float32(x) for x in (1e-3, 0.1, 5, 8)))
    return jax.jit(functools.partial(init_state, program))(hypers, 0)


def test_a_selection_chooses_and_learns_from_what_it_chose(program, batch):
    full = dataclasses.replace(program, select=every_other())
    start = start_of(full)
    assert set(start.parts) == {"select"}
    step = jax.jit(functools.partial(train_step, full))
    after, metrics = step(start, batch, jnp.float32(3.0))
    assert int(after.parts["select"]) == 11
    assert float(metrics["asset"]) == 3.0
    assert float(metrics["progress"]) == 0.0
    assert int(metrics["seen"]) == 0 + 2 + 4 + 6
    assert int(metrics["targets"]) == 4 * 31
    assert float(metrics["surprise"]) > 0
    chosen = jax.tree.map(lambda x: x[::2], batch)
    plain = start_of(program)
    alone, _ = jax.jit(functools.partial(train_step, program))(plain, chosen)
    chex.assert_trees_all_close(after.params, alone.params, rtol=1e-5, atol=1e-7)
    _, metrics = step(after, batch, jnp.float32(3.0))
    assert float(metrics["progress"]) == pytest.approx(1 / 8)


def test_weights_of_a_selection_weigh_the_rows(program, batch):
    weights = jnp.array([4.0, 0.0, 0.0, 0.0])
    full = dataclasses.replace(program, select=every_other(weights))
    after, metrics = jax.jit(functools.partial(train_step, full))(
        start_of(full), batch, jnp.float32(0.0)
    )
    first = jax.tree.map(lambda x: x[:1], batch)
    plain = start_of(program)
    alone, one = jax.jit(functools.partial(train_step, program))(plain, first)
    assert float(metrics["loss"]) == pytest.approx(float(one["loss"]), rel=1e-5)
    chex.assert_trees_all_close(after.params, alone.params, rtol=1e-4, atol=1e-6)


def test_rows_may_be_cut_for_training_and_come_whole_to_the_selection(program, batch):
    halves = functools.partial(cut, length=16)
    short = dataclasses.replace(program, cut=halves)
    after, metrics = jax.jit(functools.partial(train_step, short))(
        start_of(short), batch
    )
    alone, one = jax.jit(functools.partial(train_step, program))(
        start_of(program), cut(batch, 16)
    )
    chex.assert_trees_all_close(after.params, alone.params, rtol=1e-5, atol=1e-7)
    assert float(metrics["loss"]) == pytest.approx(float(one["loss"]))
    both = dataclasses.replace(short, select=every_other(jnp.ones(4)))
    after, metrics = jax.jit(functools.partial(train_step, both))(
        start_of(both), batch, jnp.float32(0.0)
    )
    assert int(after.parts["select"]) == 11
    assert int(metrics["seen"]) == 0 + 2 + 4 + 6


@pytest.mark.parametrize("microbatches", [1, 2])
def test_a_step_with_experts_tells_how_it_routed(microbatches, tiny, batch):
    model = {"experts": 4, "active_experts": 2, "balance": 0.1}
    changes = {"model": model, "train": {"microbatches": microbatches}}
    program = build(replace_from_dict(tiny, changes))
    step = jax.jit(functools.partial(train_step, program))
    _, metrics = step(start_of(program), batch)
    assert 0.25 <= float(metrics["router_load_max"]) < 1
    assert 0 <= float(metrics["router_dropped"]) < 1
    assert 0.08 < float(metrics["router_penalty"]) < 0.4
    assert float(metrics["loss"]) == pytest.approx(np.log(64), rel=0.01)
    assert {np.shape(value) for value in metrics.values()} == {()}


def test_a_selection_over_experts_sees_the_rows(tiny, batch):
    program = build(replace_from_dict(tiny, {"model": {"experts": 4}}))
    full = dataclasses.replace(
        program, select=every_other(), cut=functools.partial(cut, length=16)
    )
    step = jax.jit(functools.partial(train_step, full))
    after, metrics = step(start_of(full), batch, jnp.float32(0.0))
    assert int(after.parts["select"]) == 11
    assert float(metrics["surprise"]) > 0
    assert float(metrics["router_penalty"]) > 0


@pytest.mark.parametrize("good", [True, False])
def test_a_guard_decides_whether_anything_changes(good, program, state, batch):
    watched = dataclasses.replace(
        program, guard=counting(lambda loss, grad_norm, update_norm: jnp.array(good))
    )
    start = state._replace(parts={"guard": jnp.zeros((), jnp.int32)})
    step = jax.jit(functools.partial(train_step, watched))
    after, metrics = step(start, batch)
    plain, _ = jax.jit(functools.partial(train_step, program))(state, batch)
    assert int(metrics["skipped"]) == (not good)
    assert float(metrics["update_norm"]) > 0
    assert int(after.step) == int(after.parts["guard"]) == 1
    expected = plain if good else state
    close = functools.partial(chex.assert_trees_all_close, rtol=1e-5, atol=1e-8)
    same = close if good else chex.assert_trees_all_equal
    same(after.params, expected.params)
    same(after.opt, expected.opt)


SLOW = ("learned", "soap")  # one preset of each is enough by default
PAIRS = [
    pytest.param(
        rule,
        preset,
        marks=[pytest.mark.slow] if rule in SLOW and preset == "gpt2" else [],
    )
    for rule, preset in itertools.product(
        ("adamw", "muon", "learned", "soap", "lion"), ("modern", "gpt2")
    )
]


@pytest.mark.parametrize(("rule", "preset"), PAIRS)
def test_what_is_frozen_does_not_move(rule, preset, tiny, batch):
    """Neither by momentum of the steps before nor by weight decay."""
    model = model_config(preset, "tiny", vocab=64, depth=3)
    optim = dataclasses.replace(tiny.optim, name=rule, weight_decay=0.3)
    train = dataclasses.replace(tiny.train, spike=6.0)
    config = dataclasses.replace(tiny, model=model, optim=optim, train=train)
    part = dataclasses.replace(config, model=dataclasses.replace(model, frozen=1))
    step = jax.jit(functools.partial(train_step, build(config)))
    state = jax.jit(functools.partial(initial_state, config, build(config)))()
    for _ in range(3):
        state, _ = step(state, batch)
    before, less = state, jax.jit(functools.partial(train_step, build(part)))
    for _ in range(3):
        state, metrics = less(state, batch)
        assert not metrics["skipped"]
    cut = lambda s, rows: jax.tree.map(lambda x: x[rows], s.params["blocks"])
    first, rest = slice(1), slice(1, None)
    chex.assert_trees_all_equal(cut(state, first), cut(before, first))
    moved = jax.tree.map(
        lambda a, b: (a != b).any(), cut(state, rest), cut(before, rest)
    )
    assert all(jax.tree.leaves(moved))
    for name in {"positions"} & {*state.params}:
        chex.assert_trees_all_equal(state.params[name], before.params[name])
    tables = (s.params["embed"]["table"] for s in (state, before))
    assert np.array_equal(*tables) == (not model.tied)
    chex.assert_tree_all_finite((state.params, state.opt))
    thawed, _ = step(state, batch)
    chex.assert_tree_all_finite(thawed.params)
    up = lambda s: cut(s, first)["mlp"]["up"]["w"]
    assert (up(thawed) != up(state)).any()


def test_nothing_frozen_leaves_nothing_in_the_program(program):
    assert program.held is None


def test_the_same_seed_gives_the_same_state_and_another_seed_another(program, state):
    init = jax.jit(functools.partial(init_state, program))
    same, other = (init(state.hypers, seed) for seed in (0, 1))
    chex.assert_trees_all_equal(state.params, same.params)
    tables = (s.params["embed"]["table"] for s in (same, other))
    assert not np.array_equal(*tables)


def test_a_program_is_hashable_and_its_state_holds_arrays_only(program, state):
    assert isinstance(program, Program)
    assert hash(program) == hash(dataclasses.replace(program))
    assert isinstance(state, TrainState)
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(state))
