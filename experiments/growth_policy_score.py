"""From finished runs to curves of the law, rewards, and rows.

    reward = (loss before the first step - final loss) - price FLOPs / C_ref

in nats; C_ref: the FLOPs of as many steps at the last size. Higher is better.
"""

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import arms, growth_policy_ladder
from experiments.foundation import training_flops
from experiments.growth_policy_ladder import LADDERS, Ladder
from experiments.runner import Measure
from uets_jax.errors import UserError
from uets_jax.growth.fit import Curve
from uets_jax.measure.difference import difference
from uets_jax.train.loop import Result

Record = Mapping[str, Any]
WARM = 0.2  # share of the steps before which the law does not hold


def measure_with(runs: Path) -> Callable[[str], Measure]:
    """What is read off the run of a job, by the job's name."""
    return lambda name: functools.partial(measure, runs / name)


def measure(folder: Path, result: Result) -> dict[str, Any]:
    """The training loss of every step, and what growth did.

    Raises:
      UserError: if the run's metrics can't be read.
    """
    path = folder / "metrics.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}; delete the run to run it again") from None
    steps = {line["step"]: line for line in lines if line.get("loss") is not None}
    curve = {"step": [*steps], "loss": [line["loss"] for line in steps.values()]}
    events = [
        {
            "step": event["step"],
            "size": size_after(event),
            "why": event["why"],
        }
        for event in result.summary["growth"]
    ]
    return {"curve": curve, "growth": events}


def size_after(event: Record) -> int:
    """Of an entry of a run's growth."""
    return event["ops"][-1]["size"]


def curve_of(record: Record, ladder: Ladder) -> Curve:
    """The run for the fit: without its warm-up and its decay."""
    config = record["config"]
    train, optim = config["train"], config["optim"]
    tokens = train["batch"] * (config["data"]["length"] or config["model"]["context"])
    steps = np.array(record["curve"]["step"], np.float64)
    losses = np.array(record["curve"]["loss"], np.float64)
    warm, decay = WARM * train["steps"], (1 - optim["decay"]) * train["steps"]
    kept = (steps > warm) & (steps <= decay)
    index = ladder.sizes.index
    path = [(index(config["model"][ladder.field]), 0.0)]
    path += [(index(e["size"]), tokens * e["step"]) for e in record["growth"]]
    # the loss of a step is taken before its update
    seen = (steps[kept] - 1) * tokens
    end = float(tokens * train["steps"])
    return Curve(tuple(path), seen, losses[kept], end, record["final_loss"])


def reference(ladder: Ladder, steps: int) -> float:
    """C_ref."""
    return float(steps * growth_policy_ladder.step_flops(ladder, ladder.sizes[-1]))


def reward(record: Record, price: float) -> float:
    """Of a finished run."""
    whole = reference(LADDERS[record["field"]], record["horizon"])
    spent = training_flops(record) / whole
    return math.log(arms.VOCAB) - record["final_loss"] - price * spent


def best_schedule(records: Sequence[Record], price: float, steps: int) -> str:
    """The plan of the rollout with the highest reward at a price; "": never grow.

    Random search with the rollouts' budget, among those of the length asked for.
    """
    right = [
        r for r in records if r["horizon"] == steps and _first(r) and not r["diverged"]
    ]
    if not right:
        raise UserError("growth_policy: every rollout of the first size diverged")
    return max(right, key=lambda r: reward(r, price))["plan"]


def _first(record: Record) -> bool:
    """Whether a run begins at the first size."""
    return record["size"] == LADDERS[record["field"]].sizes[0]


def arm_of(record: Record, plan: str, price: float) -> str | None:
    """The line of a table of a price that a run belongs to; None: to no such line."""
    arm = record["arm"]
    if arm == "learned":
        return "learned" if record["price"] == price else None
    if arm == "fixed":
        return "best fixed" if record["plan"] == plan else None
    return arm


def case_rows(
    records: Sequence[Record], plan: str, price: float
) -> list[dict[str, Any]]:
    """The arms of one case at one price, against the best fixed schedule."""
    found: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda r: r["seed"]):
        arm = arm_of(record, plan, price)
        if arm:
            found.setdefault(arm, []).append(record)
    never = [r for r in records if r["arm"].startswith("static") and _first(r)]
    if not plan and never:
        found["best fixed"] = sorted(never, key=lambda r: r["seed"])
    base = found.get("best fixed", [])
    return [
        {"arm": arm, **row(some, base, price, plan if arm == "best fixed" else "")}
        for arm, some in found.items()
    ]


def row(
    records: Sequence[Record], base: Sequence[Record], price: float, plan: str
) -> dict[str, Any]:
    """Means over the seeds; the difference of rewards with its interval."""
    found: dict[str, Any] = {
        "field": records[0]["field"],
        "track": records[0]["track"],
        "horizon": records[0]["horizon"],
        "lambda": price,
        "seeds": len(records),
        "plan": plan or None,
        "diverged_runs": sum(r["diverged"] for r in records),
    }
    keys = ("loss", "flops", "reward", "stages", "first_growth", "last_growth")
    gaps = ("difference", "difference_low", "difference_high")
    found |= dict.fromkeys((*keys, *gaps))
    if found["diverged_runs"]:
        return found
    rewards = [reward(r, price) for r in records]
    ends = [
        r["growth"][i]["step"] / r["horizon"]
        for r in records
        for i in ((0, -1) if r["growth"] else ())
    ]
    found |= {
        "loss": float(np.mean([r["final_loss"] for r in records])),
        "flops": float(np.mean([training_flops(r) for r in records])),
        "reward": float(np.mean(rewards)),
        "stages": float(np.mean([len(r["growth"]) for r in records])),
        "first_growth": float(np.mean(ends[::2])) if ends else None,
        "last_growth": float(np.mean(ends[1::2])) if ends else None,
    }
    return found | gap_to(records, base, price)


def gap_to(
    records: Sequence[Record], base: Sequence[Record], price: float
) -> dict[str, Any]:
    """Reward less that of the same seeds of `base`; above 0: better."""
    same = [r["seed"] for r in records] == [r["seed"] for r in base]
    if not same or records is base or any(r["diverged"] for r in base):
        return {}
    mine, theirs = ([reward(r, price) for r in some] for some in (records, base))
    found = {"difference": float(np.mean(mine) - np.mean(theirs))}
    if len(mine) < 2:
        return found
    gap = difference(mine, theirs)
    return found | {"difference_low": gap.low, "difference_high": gap.high}
