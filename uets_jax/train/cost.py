"""What a run will cost on a device, before it: FLOPs, memory, time, energy, money.

The train step is traced with abstract values; nothing is allocated or compiled.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping
from typing import Any

import jax

from uets_jax.aql.assets import Assets
from uets_jax.build import build
from uets_jax.config import ExperimentConfig, MeshConfig, window_length
from uets_jax.data.windows import window_count
from uets_jax.errors import UserError
from uets_jax.growth.stages import ladder, parse, snapshots
from uets_jax.measure.devices import Device
from uets_jax.measure.flops import parameters
from uets_jax.measure.jaxpr import count
from uets_jax.measure.work import Cost, Costs
from uets_jax.step import Program
from uets_jax.train.executable import (
    Shapes,
    evaluation_cost,
    executable,
    shapes,
    trace_step,
)
from uets_jax.train.footprint import (
    axes,
    one_device,
    stage_assets,
    step_memory,
    traceable,
)
from uets_jax.train.growing import due_step
from uets_jax.train.growth_cost import growth_costs
from uets_jax.train.mesh import abstract_state, make_mesh
from uets_jax.train.stopping import checks


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A run on a number of equal devices. FLOPs, joules and dollars are of all of them.

    flops, matmul_flops: by category, as the ledger will charge them.
    memory: bytes per device: parameters, optimizer, and the rest (`activations`:
      gradients, activations, the batch).
    memory_source: "estimate", or "XLA" where the step was compiled on this machine.
    mfu: share of the peak that the matmuls of the run are taken to reach.
    seconds: all matmul FLOPs / (mfu * peak FLOP/s of the compute dtype); compilation,
      waiting for data and checkpoints are left out.
    joules: an estimate: seconds * the device's power limit.
    """

    device: str
    devices: int
    parameters: int
    tokens: int
    flops: dict[str, int]
    matmul_flops: dict[str, int]
    memory: dict[str, int]
    memory_source: str
    mfu: float
    seconds: float
    joules: float
    dollars: float

    @property
    def memory_bytes(self) -> int:
        """Peak per device."""
        return sum(self.memory.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self) | {"memory_bytes": self.memory_bytes}


def estimate(
    config: ExperimentConfig,
    device: Device,
    overrides: Mapping[str, Any] | None = None,
    mfu: float | None = None,
    compile: bool = False,
    valid_tokens: int | None = None,
) -> Estimate:
    """What the run costs on `device`, or on as many as the mesh names (`data` 0: one).

    A run that grows is taken to do so at the shares of its plan; parameters and memory
    are those of its largest stage.

    Args:
      config: `model.vocab` must be known.
      overrides: own parts of the program, see `build`.
      mfu: instead of the device's; over the matmul FLOPs of the whole run.
      compile: compiles the step on this machine for the exact memory.
      valid_tokens: of the validation text, where known; else `train.eval_tokens`.

    Raises:
      UserError: for a config that can't be built, or an MFU outside (0, 1].
    """
    mfu = device.mfu if mfu is None else mfu
    if not 0 < mfu <= 1:
        raise UserError(f"mfu: must be above 0 and at most 1, got {mfu}")
    costs = total_costs(config, overrides, valid_tokens)
    config, before = largest_stage(config)
    program = build(traceable(config), overrides)
    matmul = {name: cost.matmul for name, cost in costs.items()}
    devices = math.prod(axes(config).values())
    rate = mfu * device.peak(config.model.dtype) * devices
    seconds = sum(matmul.values()) / rate
    memory = step_memory(config, device, overrides, before)
    if compile:
        rest = compiled_bytes(config, overrides, before) - sum(memory.values())
        memory["activations"] += rest
    params = abstract_state(program, one_device()).params
    return Estimate(
        device=device.name,
        devices=devices,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        tokens=config.train.steps * config.train.batch * window_length(config),
        flops={name: cost.total for name, cost in costs.items()},
        matmul_flops=matmul,
        memory=memory,
        memory_source="XLA" if compile else "estimate",
        mfu=mfu,
        seconds=seconds,
        joules=seconds * device.watts * devices,
        dollars=seconds / 3600 * device.dollars_per_hour * devices,
    )


def largest_stage(
    config: ExperimentConfig,
) -> tuple[ExperimentConfig, ExperimentConfig | None]:
    """The config at the stage of its plan that has the most parameters, and at the one
    that selection then refers to, see `growth.stages.snapshots`.
    """
    rungs = ladder(config)
    pairs = zip(rungs, snapshots(rungs), strict=True)
    return max(pairs, key=lambda pair: parameters(pair[0].model))


def total_costs(
    config: ExperimentConfig,
    overrides: Mapping[str, Any] | None = None,
    valid_tokens: int | None = None,
) -> dict[str, Cost]:
    """FLOPs of a run by category, each stage of its plan for its share of the steps;
    what growth reads and tries beside them, too.
    """
    configs, stages, steps = ladder(config), parse(config.growth), config.train.steps
    starts = [0, *(due_step(config, stage) for stage in stages), steps]
    total = growth_costs(config, overrides)
    spans = zip(configs, itertools.pairwise(starts), strict=True)
    trained = [(stage, span) for stage, span in spans if span[0] < span[1]]
    befores = snapshots([stage for stage, _ in trained])
    for (stage, (first, last)), before in zip(trained, befores, strict=True):
        train = dataclasses.replace(config.train, steps=last - first)
        part = dataclasses.replace(stage, train=train)
        program = build(traceable(part), overrides)
        assets = stage_assets(part, overrides, before)
        steering = checks(config, first, last)
        found = run_costs(part, program, assets, valid_tokens, steering)
        for name, cost in found.items():
            total[name] = total.get(name, Cost()) + cost
    if config.train.tune:  # rehearsals; what is counted before them is not known here
        steps_alone = (c for n, c in total.items() if n not in ("evaluation", "probe"))
        all_steps = sum(steps_alone, Cost())
        share = config.train.tune_share
        parts = (round(share * x) for x in dataclasses.astuple(all_steps))
        total["probe"] = total.get("probe", Cost()) + Cost(*parts)
    return total


def run_costs(
    config: ExperimentConfig,
    program: Program,
    assets: Assets | None,
    valid_tokens: int | None = None,
    steering: int = 0,
) -> dict[str, Cost]:
    """FLOPs of all steps and validations of one shape, by category.

    Args:
      config: of as many steps.
      program: of the config.
      assets: shapes of what its step reads.
      valid_tokens: of the validation text, where known.
      steering: validations that may end the run, which are probes.
    """
    t, length = config.train, window_length(config)
    once = _step_costs(program, shapes(config, assets))
    limits = (t.eval_tokens and t.eval_tokens + 1, valid_tokens)
    windows = window_count(min(filter(None, limits), default=1), length)
    batches = -(-windows // (t.batch // t.microbatches))
    times = -(-t.steps // t.eval_every) if t.eval_every else 1
    evaluation = evaluation_cost(program, one_device(), config) * batches
    costs = {name: cost * t.steps for name, cost in once.items()}
    costs |= {"probe": evaluation * steering} if steering else {}
    return {**costs, "evaluation": evaluation * (times - steering)}


@functools.lru_cache(maxsize=16)
def _step_costs(program: Program, fed: Shapes) -> Costs:
    """Of one step, by category; kept, as budgets are asked for again and again."""
    counted = count(trace_step(program, one_device(), fed).jaxpr)
    return counted.total(dict.fromkeys(counted.branches, 0))


def compiled_bytes(
    config: ExperimentConfig,
    overrides: Mapping[str, Any] | None = None,
    before: ExperimentConfig | None = None,
) -> int:
    """Peak per device as XLA has it, after compiling the step on this machine.

    Raises:
      UserError: where XLA doesn't say, or the machine lacks the config's devices.
    """
    if config.model.attention == "cudnn" and jax.default_backend() != "gpu":
        raise UserError("model.attention: cudnn needs an NVIDIA GPU; use auto or xla")
    mesh = make_mesh(MeshConfig(**axes(config)))
    program, assets = build(config, overrides), stage_assets(config, overrides, before)
    found = executable(program, mesh, config, assets).bytes["step_peak"]
    if found is None:
        raise UserError("--compile: XLA says nothing about memory on this machine")
    return found
