"""What an update rule costs: FLOPs and seconds of a step, bytes of its state; and what
a frozen prefix saves.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from experiments import tracks
from experiments.arms import LENGTH, VOCAB
from experiments.optimizer_plan import BATCH
from experiments.runner import QUIET
from experiments.step_times import step_time
from uets_jax.build import build
from uets_jax.config import ExperimentConfig, MeshConfig
from uets_jax.measure.jaxpr import count
from uets_jax.models.presets import from_dict
from uets_jax.optim.gated import GATE
from uets_jax.optim.soap import BEGIN, REFRESH
from uets_jax.train.executable import evaluation_cost, shapes, trace_step
from uets_jax.train.mesh import abstract_state, make_mesh

SIZES = ((32, 2), (64, 4), (128, 4))  # width, depth
RULES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("muon", {}),
    ("learned", {}),
    ("learned, every 10 steps", {"name": "learned", "gate_every": 10}),
    ("adamw", {}),
    ("soap", {}),
)
NOTE = (
    "One training step of 4,096 tokens, on a quiet machine, both cores; median of 40. "
    "flops_overhead, seconds_overhead: over Muon's step, less 1. optimizer_flops: what "
    "the rule itself takes, the mean over 100 steps. state_bytes_per_param: of "
    "the optimizer's state. every 10 steps: the gate decides every tenth step and its "
    "mixture holds in between; all directions are still made."
)
FROZEN = (64, 4)  # width, depth
FROZEN_NOTE = (
    "One training step of 4,096 tokens with Muon, on a quiet machine, both cores; "
    "median of 40. forward_flops: of a forward pass over them; backward_flops: what "
    "the step takes for losses and gradients above that. backward_saved, flops_saved, "
    "seconds_saved: shares of what nothing frozen takes. The rule's own FLOPs stay."
)


def overhead_rows(
    stores: Path, sizes: Sequence[tuple[int, int]] = SIZES
) -> list[dict[str, Any]]:
    """A row for each size and rule."""
    rows = []
    for width, depth in sizes:
        made = [_row(stores, label, own, width, depth) for label, own in RULES]
        base = made[0]
        for row in made:
            for name in ("flops", "seconds"):
                own, muon = row[f"step_{name}"], base[f"step_{name}"]
                row[f"{name}_overhead"] = own / muon - 1
        rows += made
    return rows


def _row(
    stores: Path, label: str, own: dict[str, Any], width: int, depth: int
) -> dict[str, Any]:
    config = step_config(stores, {"name": label, **own}, width, depth)
    flops, size, params = step_costs(config)
    time = step_time(config)
    return {
        "arm": label,
        "width": width,
        "depth": depth,
        "params": params,
        "step_flops": sum(flops.values()),
        "optimizer_flops": flops.get("optimizer", 0.0),
        "step_seconds": time.step_seconds,
        "compile_seconds": time.compile_seconds,
        "state_bytes_per_param": size / params,
    }


def frozen_rows(
    stores: Path, width: int = FROZEN[0], depth: int = FROZEN[1]
) -> list[dict[str, Any]]:
    """A row for each number of frozen blocks, from none to all but one."""
    config = step_config(stores, {"name": "muon"}, width, depth)
    rows = [_frozen_row(config, frozen) for frozen in range(depth)]
    for row in rows:
        for name, of in (("backward", "backward_flops"), ("flops", "step_flops")):
            row[f"{name}_saved"] = 1 - row[of] / rows[0][of]
        row["seconds_saved"] = 1 - row["step_seconds"] / rows[0]["step_seconds"]
    return rows


def _frozen_row(config: ExperimentConfig, frozen: int) -> dict[str, Any]:
    model = dataclasses.replace(config.model, frozen=frozen)
    name = f"{config.name} frozen {frozen}"
    config = dataclasses.replace(config, name=name, model=model)
    flops, _, params = step_costs(config)
    mesh = make_mesh(MeshConfig(data=1))
    forward = float(evaluation_cost(build(config), mesh, config).total)
    time = step_time(config)
    return {
        "arm": f"frozen {frozen}",
        "width": model.width,
        "depth": model.depth,
        "frozen": frozen,
        "params": params,
        "forward_flops": forward,
        "backward_flops": flops["forward_backward"] - forward,
        "optimizer_flops": flops["optimizer"],
        "step_flops": sum(flops.values()),
        "step_seconds": time.step_seconds,
        "compile_seconds": time.compile_seconds,
    }


def step_config(
    stores: Path, optim: dict[str, Any], width: int, depth: int
) -> ExperimentConfig:
    """A run of a rule at a size."""
    model = {
        "preset": "modern",
        "depth": depth,
        "width": width,
        "heads": max(1, width // 32),
        "head_dim": 32,
        "context": LENGTH,
        "vocab": VOCAB,
        "head_chunks": 32,
    }
    train = {**QUIET, "steps": 100, "batch": BATCH, "eval_every": 0, "eval_tokens": 0}
    return from_dict(
        {
            "name": f"{optim['name']} {width}x{depth}",
            "data": {"source": tracks.store(stores, "clean", "a")},
            "model": model,
            "optim": optim,
            "train": {**train, "mesh": {"data": 1}},
        }
    )


def step_costs(config: ExperimentConfig) -> tuple[dict[str, float], int, int]:
    """(FLOPs of a step by category, bytes of the optimizer's state, parameters).

    FLOPs are the mean over the run's steps: a branch that is due every few steps (of
    the gate, of SOAP's bases) is charged as often as it is taken.
    """
    program, mesh = build(config), make_mesh(MeshConfig(data=1))
    traced = trace_step(program, mesh, shapes(config))
    counted, steps = count(traced.jaxpr), config.train.steps
    due = {
        GATE: -(-steps // config.optim.gate_every),
        BEGIN: 1,
        REFRESH: steps // config.optim.soap_every,
    }
    costs = counted.total({name: due[name] for name in counted.branches}, steps)
    flops = {name: cost.total / steps for name, cost in costs.items()}
    state = abstract_state(program, mesh)
    leaves = jax.tree.leaves(state.opt)
    size = sum(math.prod(x.shape) * _width(x) for x in leaves)
    params = sum(math.prod(x.shape) for x in jax.tree.leaves(state.params))
    return flops, size, params


def _width(leaf: Any) -> int:
    """Bytes of an element; keys have two words."""
    is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return 8 if is_key else leaf.dtype.itemsize
