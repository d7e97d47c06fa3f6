"""The memory of a train step on a card that need not be here, and what fits it.

Programs are traced as if they ran on the first device of this machine; nothing is
allocated, nothing compiled.
"""

import bisect
import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from uets_jax.aql.assets import Assets
from uets_jax.aql.reference import Snapshot
from uets_jax.build import build
from uets_jax.config import (
    ExperimentConfig,
    MeshConfig,
    candidates,
    piece,
    window_length,
)
from uets_jax.errors import UserError
from uets_jax.measure.devices import Device
from uets_jax.measure.memory import Memory, peak
from uets_jax.measure.tape import nbytes
from uets_jax.models.axes import axes_of
from uets_jax.step import Program
from uets_jax.train.assets import asset_shapes
from uets_jax.train.executable import Shapes, shapes, trace_step
from uets_jax.train.mesh import abstract_state, leaf_spec, make_mesh

_AXES = ("data", "fsdp", "tensor")
RESERVE = 0.1  # share of a card's memory that is left to what no trace knows


@dataclasses.dataclass(frozen=True)
class Fit:
    """Settings with which a step fits a card, and the bytes that it then needs."""

    microbatches: int
    remat: bool
    memory_bytes: int


def step_memory(
    config: ExperimentConfig,
    device: Device,
    overrides: Mapping[str, Any] | None = None,
    before: ExperimentConfig | None = None,
) -> dict[str, int]:
    """Bytes per device of one step: parameters, optimizer, activations.

    `before`: the stage that selection refers to, see `growth.stages.snapshots`.

    On several devices, parameters and optimizer are split as the mesh says, and the
    rest is that of the rows of one device with whole parameters, which is an upper
    estimate. Scores that a fused attention never writes are left out; on a CPU, values
    of bfloat16 are taken to lie in memory as float32.
    """
    program = build(traceable(config), overrides)
    t, split = config.train, axes(config)
    rows = t.batch // (split["data"] * split["fsdp"])
    unwritten = _unwritten(config, device, rows)
    widened = "cpu" in device.device_kinds
    share = config
    if candidates(config) == 1:
        share = dataclasses.replace(config, train=dataclasses.replace(t, batch=rows))
    fed = shapes(share, stage_assets(config, overrides, before))
    whole = _peak(program, fed, unwritten, widened)
    state = abstract_state(program, one_device())
    parameters, optimizer = (_bytes(x, {}) for x in (state.params, state.opt))
    return {
        "parameters": _bytes(state.params, split),
        "optimizer": _bytes(state.opt, split),
        "activations": whole.peak - parameters - optimizer,
    }


def fits(
    config: ExperimentConfig,
    device: Device,
    overrides: Mapping[str, Any] | None = None,
    before: ExperimentConfig | None = None,
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
            memory = step_memory(changed, device, overrides, before)
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
    before: ExperimentConfig | None = None,
) -> int:
    """About the largest batch that fits the card with all else as it is; 0: none does.

    Memory is taken to be convex in the batch, so that what lies on a chord fits.
    """
    split, limit = axes(config), device.memory_bytes * (1 - RESERVE)
    unit = config.train.microbatches * split["data"] * split["fsdp"]
    unit = math.lcm(unit * candidates(config), piece(config)) // candidates(config)

    def need(units: int) -> int:
        train = dataclasses.replace(config.train, batch=units * unit)
        held = max(config.select.buffer, train.batch)
        select = dataclasses.replace(config.select, buffer=held)
        changed = dataclasses.replace(config, train=train, select=select)
        return sum(step_memory(changed, device, overrides, before).values())

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


def stage_assets(
    config: ExperimentConfig,
    overrides: Mapping[str, Any] | None = None,
    before: ExperimentConfig | None = None,
) -> Assets | None:
    """Shapes of what a stage's step reads.

    Args:
      config: of the stage.
      overrides: own parts of the program, see `build`.
      before: the stage that selection refers to, see `growth.stages.snapshots`.
    """
    if before is None:
        return asset_shapes(config)
    program = build(traceable(before), overrides)
    params = abstract_state(program, one_device()).params
    return asset_shapes(config, snapshot=Snapshot(params, program.forward))


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
    """The config with the attention that any machine can trace; its FLOPs are equal."""
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
    return dict(zip(_AXES, (max(mesh.data, 1), mesh.fsdp, mesh.tensor), strict=True))


@functools.cache
def one_device() -> Mesh:
    """A mesh of the first device: programs are traced as if they ran on it."""
    return make_mesh(MeshConfig(data=1))


@functools.lru_cache(maxsize=256)
def _peak(
    program: Program, fed: Shapes, unwritten: frozenset[int], widened: bool
) -> Memory:
    traced = trace_step(program, one_device(), fed)
    gifts = [leaf.donated for leaf in jax.tree.leaves(traced.args_info)]
    return peak(traced.jaxpr, gifts, unwritten, widened)


def _bytes(tree: Any, split: Mapping[str, int]) -> int:
    """Of the leaves of a state, each divided over the mesh axes that it is split by."""
    total = 0
    sizes = [split.get(axis, 1) for axis in _AXES]
    mesh = Mesh(np.full(sizes, jax.devices()[0]), _AXES)  # nothing is placed on it
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        spec = leaf_spec(axes_of(path, leaf.ndim), leaf.shape, mesh)
        parts = math.prod(mesh.shape[axis] for axis in spec if axis)
        total += nbytes(leaf.shape, leaf.dtype) // parts
    return total


def _unwritten(config: ExperimentConfig, device: Device, rows: int) -> frozenset[int]:
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
        return frozenset()
    scores = rows // config.train.microbatches * m.heads * length * length
    return frozenset((scores, scores * m.depth))
