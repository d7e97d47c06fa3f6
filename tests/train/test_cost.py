import dataclasses

import jax
import pytest

from uets_jax.build import build
from uets_jax.config import MeshConfig
from uets_jax.errors import UserError
from uets_jax.evaluate.perplexity import compile_losses
from uets_jax.measure.devices import find
from uets_jax.measure.jaxpr import count
from uets_jax.train.cost import estimate, run_costs
from uets_jax.train.executable import executable
from uets_jax.train.mesh import compile_step, make_mesh


def train_with(config, **fields):
    return dataclasses.replace(
        config, train=dataclasses.replace(config.train, **fields)
    )


@pytest.fixture(scope="module")
def found(tiny):
    return estimate(tiny, find("cpu"))


def test_flops_are_those_of_the_traced_step_times_the_steps(
    found, tiny, program, state, batch
):
    step = compile_step(program, make_mesh(tiny.train.mesh))
    once = count(step.trace(state, batch, None).jaxpr).total({}, 1)
    for category, cost in once.items():
        assert found.flops[category] == tiny.train.steps * cost.total
        assert found.matmul_flops[category] == tiny.train.steps * cost.matmul


def test_evaluation_is_a_forward_pass_over_the_tokens_of_each_validation(
    found, tiny, program, state, batch
):
    once = count(compile_losses(program).trace(state.params, batch).jaxpr, "evaluation")
    per_batch = once.total({}, 1)["evaluation"].total
    batches = tiny.train.eval_tokens // batch.tokens.size
    assert found.flops["evaluation"] == 2 * batches * per_batch


@pytest.mark.parametrize(
    ("every", "tokens", "known", "batches"),
    [(0, 2048, None, 8), (3, 2048, None, 24), (4, 2048, 513, 4), (4, 0, 514, 6)],
)
def test_validations_are_counted(found, tiny, program, every, tokens, known, batches):
    config = train_with(tiny, eval_every=every, eval_tokens=tokens)
    other = run_costs(config, program, None, known)["evaluation"].total
    assert 16 * other == batches * found.flops["evaluation"]


def test_validation_text_counts_if_its_size_is_known(found, tiny):
    config, cpu = train_with(tiny, eval_tokens=0), find("cpu")
    assert estimate(config, cpu).flops["evaluation"] == 0
    known = estimate(config, cpu, valid_tokens=tiny.train.eval_tokens + 1)
    assert known.flops == found.flops


def test_time_energy_and_money_follow_from_the_device(found, tiny, state):
    device = find("cpu")
    rate = device.mfu * device.peak("float32")
    assert found.seconds == pytest.approx(sum(found.matmul_flops.values()) / rate)
    assert found.joules == pytest.approx(found.seconds * device.watts)
    hours = found.seconds / 3600
    assert found.dollars == pytest.approx(hours * device.dollars_per_hour)
    assert found.parameters == sum(x.size for x in jax.tree.leaves(state.params))
    assert found.tokens == 8 * 8 * 32
    assert found.to_dict()["memory_bytes"] == found.memory_bytes


def test_mfu_can_be_given(found, tiny):
    half = estimate(tiny, find("cpu"), mfu=found.mfu / 2)
    assert half.seconds == pytest.approx(2 * found.seconds)
    for mfu in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(UserError, match="mfu"):
            estimate(tiny, find("cpu"), mfu=mfu)


def test_several_devices_share_the_time(found, tiny):
    four = estimate(train_with(tiny, mesh=MeshConfig(data=2, fsdp=2)), find("cpu"))
    assert four.devices == 4
    assert four.flops == found.flops
    assert four.seconds == pytest.approx(found.seconds / 4)
    assert four.joules == pytest.approx(found.joules)
    assert four.memory_bytes < found.memory_bytes


def test_compile_gives_xlas_own_memory(found, tiny):
    exact = estimate(tiny, find("cpu"), compile=True)
    ran = executable(build(tiny), make_mesh(tiny.train.mesh), tiny)
    assert (exact.memory_source, found.memory_source) == ("XLA", "estimate")
    assert exact.memory_bytes == ran.bytes["step_peak"]
    assert found.memory_bytes == pytest.approx(exact.memory_bytes, rel=0.25)


def test_own_parts_are_traced(found, tiny, program):
    def twice(params, batch):
        losses, stats = program.forward(params, batch)
        return losses + program.forward(params, batch)[0], stats

    more = estimate(tiny, find("cpu"), {"forward": twice})
    ratio = more.flops["evaluation"] / found.flops["evaluation"]
    assert ratio == pytest.approx(2, rel=0.01)


def test_cudnn_can_be_estimated_but_not_compiled_here(tiny):
    model = dataclasses.replace(tiny.model, attention="cudnn")
    config = dataclasses.replace(tiny, model=model)
    assert estimate(config, find("h100")).memory_bytes > 0
    with pytest.raises(UserError, match="cudnn needs an NVIDIA GPU"):
        estimate(config, find("h100"), compile=True)
