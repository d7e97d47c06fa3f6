"""What a run will cost on a device, before it: FLOPs, memory, time, energy, money.

The train step is traced with abstract values; nothing is allocated or compiled.
"""

import bisect
import dataclasses
import functools
import math
import types
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from uets_jax.build import build
from uets_jax.config import ExperimentConfig, MeshConfig, window_length
from uets_jax.data.windows import window_count
from uets_jax.errors import UserError
from uets_jax.measure.devices import Device
from uets_jax.measure.jaxpr import Cost, count
from uets_jax.measure.memory import peak
from uets_jax.measure.tape import nbytes
from uets_jax.models.axes import axes_of
from uets_jax.step import Program
from uets_jax.train.executable import evaluation_cost, executable, trace_step
from uets_jax.train.mesh import abstract_state, leaf_spec, make_mesh

_WHOLE = {"data": 1, "fsdp": 1, "tensor": 1}
RESERVE = 0.1  # share of a card's memory that is left to what no trace knows


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


@dataclasses.dataclass(frozen=True)
class Fit:
    """Settings with which a step fits a card, and the bytes that it then needs."""

    microbatches: int
    remat: bool
    memory_bytes: int


def estimate(
    config: ExperimentConfig,
    device: Device,
    overrides: Mapping[str, Any] | None = None,
    mfu: float | None = None,
    compile: bool = False,
    valid_tokens: int | None = None,
) -> Estimate:
    """What the run costs on `device`, or on as many as the mesh names (`data` 0: one).

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
    program = build(traceable(config), overrides)
    costs = run_costs(config, program, valid_tokens)
    matmul = {name: cost.matmul for name, cost in costs.items()}
    devices = math.prod(axes(config).values())
    rate = mfu * device.peak(config.model.dtype) * devices
    seconds = sum(matmul.values()) / rate
    memory = step_memory(config, device, overrides)
    if compile:
        rest = compiled_bytes(config, overrides) - sum(memory.values())
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


def run_costs(
    config: ExperimentConfig, program: Program, valid_tokens: int | None = None
) -> dict[str, Cost]:
    """FLOPs of all steps and validations, by category, as the ledger charges them."""
    t, length = config.train, window_length(config)
    step = trace_step(program, one_device(), t.batch, length)
    counted = count(step.jaxpr)
    once = counted.total(dict.fromkeys(counted.branches, 0))
    limits = (t.eval_tokens and t.eval_tokens + 1, valid_tokens)
    windows = window_count(min(filter(None, limits), default=1), length)
    batches = -(-windows // (t.batch // t.microbatches))
    times = -(-t.steps // t.eval_every) if t.eval_every else 1
    evaluation = evaluation_cost(program, one_device(), config)
    costs = {name: cost * t.steps for name, cost in once.items()}
    return {**costs, "evaluation": evaluation * (batches * times)}


def step_memory(
    config: ExperimentConfig,
    device: Device,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, int]:
    """Bytes per device of one step: parameters, optimizer, activations.

    On several devices, parameters and optimizer are split as the mesh says, and the
    rest is that of the rows of one device with whole parameters, which is an upper
    estimate. Scores that a fused attention never writes are left out.
    """
    program = build(traceable(config), overrides)
    t, split = config.train, axes(config)
    rows = t.batch // (split["data"] * split["fsdp"])
    traced = trace_step(program, one_device(), rows, window_length(config))
    gifts = [leaf.donated for leaf in jax.tree.leaves(traced.args_info)]
    whole = peak(traced.jaxpr, gifts, _unwritten(config, device, rows))
    state = abstract_state(program, one_device())
    parameters, optimizer = _bytes(state.params, {}), _bytes(state.opt, {})
    return {
        "parameters": _bytes(state.params, split),
        "optimizer": _bytes(state.opt, split),
        "activations": whole.peak - parameters - optimizer,
    }


def fits(
    config: ExperimentConfig,
    device: Device,
    overrides: Mapping[str, Any] | None = None,
) -> Fit | None:
    """The cheapest way to run the config's batch on the card, if there is one.

    Without recomputation before with it, then the fewest microbatches; a tenth of the
    card's memory (`RESERVE`) stays free.
    """
    t, split = config.train, axes(config)
    shards, limit = split["data"] * split["fsdp"], device.memory_bytes * (1 - RESERVE)
    parts = [n for n in range(1, t.batch // shards + 1) if t.batch % (n * shards) == 0]
    for remat in (False, True)[config.model.remat :]:

        def fit(parts: int, remat: bool = remat) -> Fit:
            changed = with_settings(config, parts, remat)
            memory = step_memory(changed, device, overrides)
            return Fit(parts, remat, sum(memory.values()))

        if (first := fit(parts[0])).memory_bytes <= limit:
            return first
        if fit(parts[-1]).memory_bytes <= limit:
            enough = lambda n, fit=fit: fit(n).memory_bytes <= limit
            return fit(parts[bisect.bisect_left(parts, True, key=enough)])
    return None


def largest_batch(
    config: ExperimentConfig,
    device: Device,
    overrides: Mapping[str, Any] | None = None,
) -> int:
    """About the largest batch that fits the card with all else as it is; 0: none does.

    Memory is taken to be convex in the batch, so that what lies on a chord fits.
    """
    split, limit = axes(config), device.memory_bytes * (1 - RESERVE)
    unit = config.train.microbatches * split["data"] * split["fsdp"]

    def need(units: int) -> int:
        train = dataclasses.replace(config.train, batch=units * unit)
        changed = dataclasses.replace(config, train=train)
        return sum(step_memory(changed, device, overrides).values())

    low, high = 1, max(2, config.train.batch // unit)
    if need(low) > limit:
        return 0
    if need(high) <= limit:
        slope = max(need(high) - need(low), 1) / (high - low)
        low, high = high, high + max(1, math.ceil((limit - need(high)) / slope))
    if need(high) <= limit:
        return high * unit
    share = (limit - need(low)) / (need(high) - need(low))
    return unit * (low + int((high - low) * share))


def with_settings(
    config: ExperimentConfig, microbatches: int, remat: bool
) -> ExperimentConfig:
    """The config with two of the settings that memory hangs on."""
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, remat=remat),
        train=dataclasses.replace(config.train, microbatches=microbatches),
    )


def traceable(config: ExperimentConfig) -> ExperimentConfig:
    """The config with an attention that any machine can trace; it costs the same."""
    model = dataclasses.replace(config.model, attention="xla")
    return dataclasses.replace(config, model=model)


def axes(config: ExperimentConfig) -> dict[str, int]:
    """Devices per mesh axis; `data` 0 is one, since nobody knows how many there are.

    Raises:
      UserError: if the rows of a microbatch can't be split over them.
    """
    t, mesh = config.train, config.train.mesh
    shards = max(mesh.data, 1) * mesh.fsdp
    if t.batch // t.microbatches % shards:
        raise UserError(
            f"train.batch / train.microbatches: {t.batch // t.microbatches} rows can't "
            f"be split over {shards} devices; use a multiple of {shards}"
        )
    return {"data": max(mesh.data, 1), "fsdp": mesh.fsdp, "tensor": mesh.tensor}


@functools.cache
def one_device() -> Mesh:
    """A mesh of the first device: programs are traced as if they ran on it."""
    return make_mesh(MeshConfig(data=1))


def compiled_bytes(
    config: ExperimentConfig, overrides: Mapping[str, Any] | None = None
) -> int:
    """Peak per device as XLA has it, after compiling the step on this machine.

    Raises:
      UserError: where XLA doesn't say, or the machine lacks the config's devices.
    """
    if config.model.attention == "cudnn" and jax.default_backend() != "gpu":
        raise UserError("model.attention: cudnn needs an NVIDIA GPU; use auto or xla")
    mesh = make_mesh(MeshConfig(**axes(config)))
    found = executable(build(config, overrides), mesh, config).bytes["step_peak"]
    if found is None:
        raise UserError("--compile: XLA says nothing about memory on this machine")
    return found


def _bytes(tree: Any, split: Mapping[str, int]) -> int:
    """Of the leaves of a state, each divided over the mesh axes that it is split by."""
    total = 0
    mesh: Any = types.SimpleNamespace(shape={**_WHOLE, **split})
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        spec = leaf_spec(axes_of(path, leaf.ndim), leaf.shape, mesh)
        parts = math.prod(mesh.shape[axis] for axis in spec if axis)
        total += nbytes(leaf.shape, leaf.dtype) // parts
    return total


def _unwritten(config: ExperimentConfig, device: Device, rows: int) -> set[int]:
    """Numbers of elements of attention's scores, where the device has a fused kernel.

    They are told by their size alone; a config whose other arrays have the same is
    left as it is.
    """
    m, length = config.model, window_length(config)
    fused = m.attention == "cudnn" or (
        m.attention == "auto" and m.dtype == "bfloat16" and not m.mask_documents
    )
    alike = m.heads * length in (m.vocab, m.width, m.hidden, m.heads * m.head_dim)
    if not fused or alike or not device.label.startswith("NVIDIA"):
        return set()
    scores = rows // config.train.microbatches * m.heads * length * length
    return {scores, scores * m.depth}
