"""The arms of PROTOCOL's comparisons as configs, and the budgets that they are given.

A budget is in total FLOPs of training, as the ledger counts them: forward, backward and
optimizer. Whatever an arm changes (depth, batch, rule), it gets as many steps as the
budget pays for.
"""

import functools
from collections.abc import Mapping
from typing import Any

from experiments.runner import QUIET
from experiments.search import Axis
from uets_jax.build import build
from uets_jax.config import ExperimentConfig, MeshConfig
from uets_jax.errors import UserError
from uets_jax.measure.jaxpr import count
from uets_jax.measure.work import Cost
from uets_jax.models.presets import from_dict
from uets_jax.train.executable import shapes, trace_step
from uets_jax.train.mesh import make_mesh

WIDTH, HEADS, LENGTH, VOCAB = 64, 2, 128, 1024
DEPTHS = (1, 2, 4)
UNIT = 2.4e12  # FLOPs of U: b0 with two layers spends them on 2.0 M tokens
REFERENCE_BATCH = 16  # windows; the searched rate is that of this batch

PRESET = {"b0": "gpt2"}  # all others: modern
MUON = ("b2", "b2m")
TABLES = {"b2m": 16384}  # rows of each n-gram table


def axes(arm: str) -> tuple[Axis, ...]:
    """What is searched for an arm, most sensitive first."""
    muon = arm in MUON
    start = {"b0": 2, "b1": 4}.get(arm, 4)
    names = ("linear", "cosine", "wsd") if arm == "b0" else ("cosine", "wsd", "linear")
    found = [
        Axis("learning_rate", MUON_RATES if muon else ADAM_RATES, start),
        Axis("batch", (1, 2, 4, 8, 16, 32, 64), 3 if muon else 2, closed=True),
        Axis("weight_decay", (0.0, 0.03, 0.1, 0.3, 1.0, 3.0), 2, closed=True),
        Axis("schedule", names, 1, closed=True, closed_above=True),
        Axis("warmup", (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.45), 2, closed=True),
    ]
    if muon:
        found.insert(2, Axis("adam_ratio", (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0), 2))
    return tuple(found)


MUON_RATES = (0.00125, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08)
ADAM_RATES = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032)


def config(
    arm: str,
    source: str,
    settings: Mapping[str, Any],
    depth: int,
    flops: float,
    seed: int = 0,
) -> ExperimentConfig:
    """The run of an arm.

    Args:
      arm: b0, b1, b2 or b2m.
      source: of its data, `tokens:DIR`.
      settings: of `axes`; the rate is scaled by the square root of the batch, the
        warm-up is a share of the steps.
      depth: number of layers.
      flops: to be spent on training.
      seed: of parameters and data order.

    Raises:
      UserError: if the FLOPs don't pay for one step.
    """
    batch = settings["batch"]
    steps = round(flops / step_flops(arm, depth, batch))
    if steps < 1:
        raise UserError(
            f"{arm}, {depth} layers, batch {batch}: {flops:.3g} FLOPs are less than a "
            "step; give a larger --unit"
        )
    rate = settings["learning_rate"] * (batch / REFERENCE_BATCH) ** 0.5
    optim = {
        "name": "muon" if arm in MUON else "adamw",
        "learning_rate": rate,
        "weight_decay": settings["weight_decay"],
        "warmup": round(settings["warmup"] * steps),
        "schedule": settings["schedule"],
        "adam_ratio": settings.get("adam_ratio", 1.0),
    }
    train = {**QUIET, "steps": steps, "batch": batch, "seed": seed}
    return from_dict(
        {
            "name": f"{arm} {depth} layers",
            "data": {"source": source},
            "model": model(arm, depth),
            "optim": optim,
            "train": {**train, "eval_every": 0, "eval_tokens": 0, "mesh": {"data": 1}},
        }
    )


def model(arm: str, depth: int) -> dict[str, Any]:
    """The architecture of an arm, as `from_dict` takes it."""
    return {
        "preset": PRESET.get(arm, "modern"),
        "depth": depth,
        "width": WIDTH,
        "heads": HEADS,
        "head_dim": WIDTH // HEADS,
        "context": LENGTH,
        "vocab": VOCAB,
        "head_chunks": 32,
        "memory_rows": TABLES.get(arm, 0),
    }


@functools.lru_cache(maxsize=256)
def step_flops(arm: str, depth: int, batch: int) -> int:
    """Total FLOPs of one training step, counted on its trace; nothing is compiled."""
    values = {
        "model": model(arm, depth),
        "optim": {"name": "muon" if arm in MUON else "adamw"},
        "train": {"batch": batch},
    }
    config = from_dict(values)
    mesh = make_mesh(MeshConfig(data=1))
    cost = count(trace_step(build(config), mesh, shapes(config)).jaxpr).total()
    return int(sum(cost.values(), start=Cost()).total)
