"""How soon a curriculum has learnt, and how well: from finished runs to rows.

A run's curve is its validation loss every few steps, and the loss of an untrained model
before them. Steps between two points are interpolated on a line.
"""

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import tracks
from experiments.curriculum_plan import RANDOM, TRACK
from experiments.foundation import training_flops
from experiments.runner import Job, Measure, Results
from uets_jax.build import build
from uets_jax.data.store import open_store
from uets_jax.errors import UserError
from uets_jax.measure.difference import difference
from uets_jax.step import evaluated
from uets_jax.train.loop import Result
from uets_jax.train.mesh import make_mesh
from uets_jax.train.session import Session
from uets_jax.train.validation import validation

SHARES = (0.75, 0.9)  # of the drop of random order's loss

Record = Mapping[str, Any]


class Curve(NamedTuple):
    """Validation loss in nats per token, by step and by training FLOPs so far."""

    steps: list[float]
    losses: list[float]
    flops: list[float]


def measure_with(runs: Path, stores: Path) -> Callable[[str], Measure]:
    """What is read off the run of a job, by the job's name."""
    return lambda name: functools.partial(measure, runs / name, stores)


def measure(folder: Path, stores: Path, result: Result) -> dict[str, Any]:
    """The curve of a run, and the bits per byte of its last state on all of valid-B.

    Raises:
      UserError: if the run's metrics can't be read.
    """
    config = result.config
    directory = tracks.store(stores, TRACK, "b").partition(":")[2]
    mesh = make_mesh(config.train.mesh)
    session = Session(config, open_store(directory), build(config), mesh)
    params = evaluated(session.program, result.state)
    found = validation(session, params, "valid", 0)
    lines = metrics(folder)
    curve = curve_of(lines)._asdict()
    return {"bits_per_byte": found["bits_per_byte"], "curve": curve, **made(lines)}


def metrics(folder: Path) -> list[Record]:
    """The lines that a run has written.

    Raises:
      UserError: if they can't be read.
    """
    path = folder / "metrics.jsonl"
    try:
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}; delete the run to run it again") from None


def curve_of(lines: Sequence[Record]) -> Curve:
    """The points of a run, step 0 first.

    There the loss is the first step's training loss, which is taken before the update:
    with an output head that starts at zero it is log(vocab) on any text. Its FLOPs are
    those before the first step: what was read off the text beforehand.
    """
    steps = {line["step"]: line for line in lines if "loss" in line}
    seen = {line["step"]: line for line in lines if "valid_loss" in line}
    first, second = steps[1], steps[min(2, len(steps))]
    before = first["flops"] - (second["flops"] - first["flops"])
    points = [(0, first["loss"], before)]
    points += [(s, seen[s]["valid_loss"], seen[s]["flops"]) for s in sorted(seen)]
    return Curve(*(list(map(float, column)) for column in zip(*points, strict=True)))


def made(lines: Sequence[Record]) -> dict[str, float]:
    """`synthetic_accepted`: share of the made-up rows; empty where none were made."""
    taken = sum(line.get("taken/synthesis", 0) for line in lines)
    accepted = sum(line.get("synthetic_accepted", 0) for line in lines)
    return {"synthetic_accepted": accepted / taken} if taken else {}


def reached(curve: Curve, level: float) -> tuple[float, float] | None:
    """(step, FLOPs) at which the loss is first as low as `level`; None if never."""
    losses = np.array(curve.losses)
    below = np.flatnonzero(losses <= level)
    if not below.size:
        return None
    at = int(below[0])
    if at == 0:
        return curve.steps[0], curve.flops[0]
    share = (losses[at - 1] - level) / (losses[at - 1] - losses[at])
    between = lambda x: float(x[at - 1] + share * (x[at] - x[at - 1]))
    return between(curve.steps), between(curve.flops)


def levels(records: Sequence[Record]) -> dict[float, float]:
    """The loss at which each share of random order's mean drop is done."""
    curves = [Curve(**record["curve"]) for record in records]
    first = float(np.mean([curve.losses[0] for curve in curves]))
    last = float(np.mean([curve.losses[-1] for curve in curves]))
    return {share: first - share * (first - last) for share in SHARES}


def by_arm(jobs: Sequence[Job], results: Results) -> dict[str, list[Record]]:
    """Records of each arm in the order of its seeds; arms without all are left out."""
    found: dict[str, list[Any]] = {}
    for job in jobs:
        found.setdefault(dict(job.labels)["arm"], []).append(results.get(job.name))
    return {arm: some for arm, some in found.items() if None not in some}


def pacing_rows(jobs: Sequence[Job], results: Results) -> list[dict[str, Any]]:
    """`curriculum.pacing`; empty before random order is done, or if it diverged."""
    found = by_arm(jobs, results)
    base = found.get(RANDOM.name, [])
    if not base or any(record["diverged"] for record in base):
        return []
    return [pacing_row(records, base) for records in found.values()]


def pacing_row(records: Sequence[Record], base: Sequence[Record]) -> dict[str, Any]:
    """An arm against random order: how soon, how well, for how much."""
    row = {key: records[0][key] or None for key in ("arm", "difficulty", "pacing")}
    row |= {"lengths": records[0]["lengths"] or None, "track": records[0]["track"]}
    row |= {"seeds": len(records), "steps": records[0].get("steps")}
    for share, level in reversed(levels(base).items()):
        row |= sooner(f"to_{share:.0%}".replace("%", "_percent"), level, records, base)
    return row | outcome(records, base)


def sooner(
    name: str, level: float, records: Sequence[Record], base: Sequence[Record]
) -> dict[str, Any]:
    """Means over the seeds of steps and FLOPs to a loss, and base's over these.

    None where a seed never gets there. The interval is Student's t of the logarithm of
    the ratio, seed by seed.
    """
    ours, theirs = (
        [None if r["diverged"] else reached(Curve(**r["curve"]), level) for r in some]
        for some in (records, base)
    )
    row: dict[str, Any] = {}
    for place, currency in enumerate(("steps", "flops")):
        key = f"{currency}_{name}"
        keys = (key, *(f"speed_up_{key}{end}" for end in ("", "_low", "_high")))
        row |= dict.fromkeys(keys)
        if None in ours or None in theirs:
            continue
        mine, other = (np.array([p[place] for p in x if p]) for x in (ours, theirs))
        row |= {key: mine.mean(), f"speed_up_{key}": other.mean() / mine.mean()}
        if len(mine) > 1 and records is not base:
            gap = difference(np.log(other), np.log(mine))
            row |= {keys[2]: math.exp(gap.low), keys[3]: finite_exp(gap.high)}
    return row


def finite_exp(x: float) -> float | None:
    """exp(x), None where that is no number."""
    return math.exp(x) if x < 700 else None


def outcome(records: Sequence[Record], base: Sequence[Record]) -> dict[str, Any]:
    """Final bits per byte, the difference to the base's, tokens and FLOPs."""
    keys = ("bits_per_byte", "difference_to_random", "difference_low")
    row: dict[str, Any] = dict.fromkeys((*keys, "difference_high"))
    row |= {"diverged_runs": sum(r["diverged"] for r in records)}
    if row["diverged_runs"]:
        return row | {"tokens": None, "total_flops": None}
    mine, theirs = ([r["bits_per_byte"] for r in some] for some in (records, base))
    row["bits_per_byte"] = float(np.mean(mine))
    if records is not base:
        row["difference_to_random"] = float(np.mean(mine) - np.mean(theirs))
    if len(mine) > 1 and records is not base:
        apart = difference(mine, theirs)
        row |= {"difference_low": apart.low, "difference_high": apart.high}
    spent = float(np.mean([training_flops(r) for r in records]))
    return row | {"tokens": records[0]["tokens"], "total_flops": spent}


def synthesis_rows(
    jobs: Sequence[Job], results: Results, base: Sequence[Record]
) -> list[dict[str, Any]]:
    """`curriculum.synthesis`: the arms, after `none`, which is random order."""
    if not base or any(record["diverged"] for record in base):
        return []
    found = {"none": base, **by_arm(jobs, results)}
    rows = []
    for arm, records in found.items():
        accepted = [r.get("synthetic_accepted") for r in records]
        share = None if None in accepted else float(np.mean(accepted))
        row = {"arm": arm, "track": TRACK, "seeds": len(records)}
        rows.append(row | outcome(records, base) | {"synthetic_accepted": share})
    return rows
