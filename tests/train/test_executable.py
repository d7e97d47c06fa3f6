import dataclasses

import jax
import numpy as np

from uets_jax.build import build, hypers
from uets_jax.config import MeshConfig
from uets_jax.measure.flops import forward_flops, step_flops
from uets_jax.measure.scopes import branch, category
from uets_jax.train.executable import (
    abstract_batch,
    evaluation_cost,
    executable,
    shapes,
    trace_step,
)
from uets_jax.train.mesh import compile_init, make_mesh, put_batch

ONE = MeshConfig(data=1)


def test_what_was_compiled_is_the_step_and_is_shared(tiny, batch):
    program, mesh = build(tiny), make_mesh(ONE)
    step = executable(program, mesh, tiny)
    faster = dataclasses.replace(tiny.optim, learning_rate=0.1)
    other = dataclasses.replace(tiny, optim=faster)
    assert executable(build(other), mesh, other) is step
    state = compile_init(program, mesh)(hypers(tiny), 0)
    before = jax.tree.map(np.asarray, state.params)
    state, metrics = step.call(state, put_batch(batch, mesh), None)
    assert int(state.step) == 1
    assert np.isfinite(float(metrics["loss"]))
    moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), before, state.params)
    assert max(jax.tree.leaves(moved)) > 0


def test_flops_are_those_of_the_closed_forms(tiny):
    program, mesh = build(tiny), make_mesh(ONE)
    costs = executable(program, mesh, tiny).count.total({}, 1)
    closed = step_flops(tiny)
    assert costs["forward_backward"].matmul == closed["forward_backward"]
    assert costs["optimizer"].matmul == closed["optimizer"] == 0
    one = evaluation_cost(program, mesh, tiny)
    assert one.matmul == forward_flops(tiny.model, 32) * 32 * 8


def test_muon_is_charged_to_the_optimizer(tiny):
    optim = dataclasses.replace(tiny.optim, name="muon")
    muon = dataclasses.replace(tiny, optim=optim)
    traced = trace_step(build(muon), make_mesh(ONE), shapes(muon))
    from uets_jax.measure.jaxpr import count

    costs = count(traced.jaxpr).total({}, 1)
    assert costs["optimizer"].matmul == step_flops(muon)["optimizer"] > 0


def test_bytes_hold_the_state_and_what_is_fed(tiny):
    program, mesh = build(tiny), make_mesh(ONE)
    sizes = executable(program, mesh, tiny).bytes
    state = compile_init(program, mesh)(hypers(tiny), 0)
    leaves = jax.tree.leaves((state.params, state.opt, state.hypers))
    held = sum(x.nbytes for x in leaves)
    fed = sum(np.prod(x.shape) * 4 for x in abstract_batch(8, 32))
    assert held <= sizes["step_arguments"] <= held + fed + 64
    parts = ("step_arguments", "step_outputs", "step_temporaries")
    assert sizes["step_peak"] == sum(sizes[name] for name in parts)
    assert sizes["step_outputs"] < 1000  # the state is donated


def test_an_evaluation_is_charged_whole_whatever_its_parts_are_called(tiny):
    program, mesh = build(tiny), make_mesh(ONE)

    def forward(params, rows):
        with category("probe"):
            losses, stats = program.forward(params, rows)
        picked = branch(
            "b", losses.sum() > 0, lambda x: x @ x.T @ x, lambda x: x, losses
        )
        return picked, stats

    named = build(tiny, {"forward": forward})
    plain = evaluation_cost(program, mesh, tiny).matmul
    assert evaluation_cost(named, mesh, tiny).matmul == plain + 2 * (2 * 8 * 8 * 32)
