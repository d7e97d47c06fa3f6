import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from uets_jax.config import ExperimentConfig, OptimConfig, TrainConfig
from uets_jax.measure.flops import (
    block_flops,
    block_matrices,
    forward_flops,
    forward_pass_flops,
    optimizer_flops,
    parameters,
    step_flops,
    train_flops,
    train_pass_flops,
)
from uets_jax.measure.jaxpr import count
from uets_jax.models.presets import PRESETS, model_config
from uets_jax.models.transformer import make_model


def dots(jaxpr, times=1):
    """FLOPs of every matmul in a jaxpr; scans count as often as they run."""
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (contract, _), _ = eqn.params["dimension_numbers"]
            inner = np.prod([eqn.invars[0].aval.shape[i] for i in contract])
            total += 2 * times * int(inner) * eqn.outvars[0].aval.size
        runs = eqn.params.get("length", 1) if eqn.primitive.name == "scan" else 1
        for inner in jaxprs_in_params(eqn.params):
            total += dots(getattr(inner, "jaxpr", inner), times * runs)
    return total


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("activation", ["relu2", "swiglu"])
@pytest.mark.parametrize("remat", [False, True])
def test_closed_forms_equal_the_matmuls_of_the_program(
    preset, activation, remat, batch, key
):
    config = model_config(
        preset,
        "tiny",
        vocab=64,
        depth=3,
        heads=4,
        kv_heads=2,
        activation=activation,
        remat=remat,
    )
    model, tokens = make_model(config), batch.tokens.size
    params = jax.eval_shape(model.init, key)
    forward = jax.make_jaxpr(lambda p: model.forward(p, batch)[0])(params)
    assert dots(forward.jaxpr) == tokens * forward_flops(config, 32)
    loss = lambda p: model.forward(p, batch)[0].sum()
    both = jax.make_jaxpr(jax.grad(loss))(params)
    assert dots(both.jaxpr) == tokens * train_flops(config, 32)
    assert sum(x.size for x in jax.tree.leaves(params)) == parameters(config)


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("activation", ["relu2", "swiglu"])
@pytest.mark.parametrize(
    ("k", "capacity"), [(1, 1.25), (2, 1.1), (2, 0.0), (3, 0.7), (3, 9.0)]
)
def test_closed_forms_of_experts_equal_the_matmuls_of_the_program(
    k, capacity, activation, remat, batch, key
):
    fields = {"experts": 3, "active_experts": k, "capacity": capacity, "remat": remat}
    preset = "gpt2" if k == 3 else "modern"
    config = model_config(preset, "tiny", vocab=64, activation=activation, **fields)
    model, tokens = make_model(config), batch.tokens.size
    params = jax.eval_shape(model.init, key)
    forward = jax.make_jaxpr(lambda p: model.forward(p, batch)[0])(params)
    assert dots(forward.jaxpr) == forward_pass_flops(config, 32, tokens)
    loss = lambda p: model.forward(p, batch)[0].sum()
    both = jax.make_jaxpr(jax.grad(loss))(params)
    assert dots(both.jaxpr) == train_pass_flops(config, 32, tokens)
    assert sum(x.size for x in jax.tree.leaves(params)) == parameters(config)


def test_flops_per_token_of_experts_are_a_mean():
    config = model_config("modern", "tiny", vocab=64, experts=4, capacity=1.0)
    whole = forward_pass_flops(config, 32, 32)
    assert forward_flops(config, 32) == whole / 32
    dense = dataclasses.replace(config, experts=0)
    router = 2 * config.depth * config.width * 4
    assert forward_flops(config, 32) == forward_flops(dense, 32) + router


@pytest.mark.parametrize("parts", [1, 2])
def test_a_step_of_experts_costs_what_its_walk_counts(parts, step_of):
    fields = {"experts": 4, "active_experts": 2, "capacity": 1.1}
    config, step = step_of("modern", "muon", parts=parts, **fields)
    counted = count(step.jaxpr).total()
    expected = step_flops(config)
    assert {name: counted[name].matmul for name in expected} == expected


@pytest.mark.parametrize("frozen", [1, 2])
@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize(
    ("preset", "own"),
    [
        ("modern", {"activation": "swiglu", "heads": 4, "kv_heads": 2}),
        ("gpt2", {}),
        ("modern", {"experts": 3, "active_experts": 2}),
    ],
)
def test_a_frozen_prefix_costs_a_forward_pass(preset, own, remat, frozen, batch, key):
    fields = {"vocab": 64, "depth": 3, "frozen": frozen, "remat": remat, **own}
    config = model_config(preset, "tiny", **fields)
    model, tokens = make_model(config), batch.tokens.size
    params = jax.eval_shape(model.init, key)
    forward = jax.make_jaxpr(lambda p: model.forward(p, batch)[0])(params)
    assert dots(forward.jaxpr) == forward_pass_flops(config, 32, tokens)
    loss = lambda p: model.forward(p, batch)[0].sum()
    both = jax.make_jaxpr(jax.grad(loss))(params)
    found = count(both).total()["forward_backward"].matmul
    assert found == dots(both.jaxpr) == train_pass_flops(config, 32, tokens)
    if not remat:
        block = block_flops(config, 32, tokens)
        head = 2 * tokens * config.width * config.vocab
        assert found == 3 * block + 2 * (3 - frozen) * block + 3 * head


@pytest.mark.parametrize(("preset", "rule"), [("modern", "muon"), ("gpt2", "adamw")])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_step_with_a_frozen_prefix_costs_what_its_walk_counts(
    preset, rule, parts, step_of
):
    costs = []
    for frozen in range(3):
        config, step = step_of(preset, rule, parts=parts, depth=3, frozen=frozen)
        counted, expected = count(step.jaxpr).total(), step_flops(config)
        assert {name: counted[name].matmul for name in expected} == expected
        costs.append(expected["forward_backward"])
    block = block_flops(config.model, 32, 8 * 32)
    assert np.diff(costs).tolist() == [-2 * block] * 2


def test_newton_schulz_is_counted(program, state):
    config = ExperimentConfig(
        model=model_config("modern", "tiny", vocab=64), optim=OptimConfig(name="muon")
    )
    expected = 0
    for a, b in block_matrices(config.model):
        n, k = sorted((a, b))
        iteration = 2 * n * n * k + 2 * n * n * n + 2 * n * n * k
        expected += 5 * iteration
    assert optimizer_flops(config) == config.model.depth * expected
    adamw = dataclasses.replace(config, optim=OptimConfig(name="adamw"))
    assert optimizer_flops(adamw) == 0


def test_newton_schulz_equals_the_matmuls_of_the_update(key):
    from uets_jax.build import build

    config = ExperimentConfig(
        model=model_config("modern", "tiny", vocab=64), optim=OptimConfig(name="muon")
    )
    program = build(config)
    params = jax.eval_shape(program.init, key)
    state = jax.eval_shape(program.tx.init, params)
    update = functools.partial(program.tx.update, learning_rate=jnp.float32(1))
    jaxpr = jax.make_jaxpr(update)(params, state, params)
    assert dots(jaxpr.jaxpr) == optimizer_flops(config)


def test_a_step_of_gpt2_small_costs_what_is_known_of_it():
    config = ExperimentConfig(
        model=model_config("gpt2", "gpt2-small", vocab=50257),
        optim=OptimConfig(name="adamw"),
        train=TrainConfig(batch=4),
    )
    found = step_flops(config)
    assert found["optimizer"] == 0
    # 6 N per token, and attention (Kaplan et al. 2020), within 2 %
    rough = 6 * (parameters(config.model) - 1024 * 768) + 12 * 12 * 1024 * 768
    each = found["forward_backward"] / (4 * 1024)
    assert each == pytest.approx(rough, rel=0.02)
