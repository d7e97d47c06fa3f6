"""What came out of a pilot: plain values for `pilot.json`, lines for a terminal."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from uets_jax.config import ExperimentConfig, config_hash
from uets_jax.errors import UserError
from uets_jax.measure.difference import break_even
from uets_jax.measure.machine import commit, machine, versions
from uets_jax.pilot.gains import Gain, Line, gains, line
from uets_jax.pilot.methods import METHODS
from uets_jax.pilot.page import interval, ratio, verdict
from uets_jax.pilot.plan import PARTS, PLAIN, TOGETHER, Plan
from uets_jax.pilot.recipe import command, recommended
from uets_jax.pilot.runs import Record
from uets_jax.report import units

HONEST = (
    "This is an extrapolation: measured at {share:.2%} of the budget, on {seeds} "
    "seeds. Effects of growth show late, a start from counts is worth most early; what "
    "helps in a short run may not in the whole one."
)
NOTHING = "No interval lies above 1: the plain run is the recipe."
BETTER = "Together they were measured, too, and end lower than any of them alone."
WORSE = "{all} help alone; together they end no lower than {best}, the best of them."
APART = "{all} help alone; {best} is the best of them. Together: {why}."


def result(
    given: ExperimentConfig,
    plan: Plan,
    records: Mapping[str, Record],
    full: Path,
    timed: Sequence[Record] = (),
) -> dict[str, Any]:
    """Of finished runs.

    Args:
      given: the full run that was asked about.
      plan: of the pilot.
      records: by the name of the shot.
      full: where the recommended run is to go.
      timed: other runs that the pilot has made.

    Returns:
      full: FLOPs and steps of the full run.
      plain, methods: of each arm the FLOPs that it is compared by and its mean losses;
        of each method its FLOPs ratio to the plain run with a 95 % interval, whether it
        helps, and the leads at equal FLOPs.
      skipped: methods of which there is nothing to say, and why.
      recipe: the methods to use, a command line, notes.
      warnings: what it all is worth.
      cost: of the pilot itself.
    """
    found, skipped = gains(plan, records)
    base = line(plan, plan.arms[0], records)
    if base is None:
        raise UserError("the plain run diverges; lower --optim.learning-rate")
    rows = [_row(plan, one, records) for one in found]
    return {
        "name": given.name,
        "source": given.data.source,
        "config_hash": config_hash(given),
        "corpus_sha256": plan.corpus,
        "full": {"flops": plan.flops, "steps": given.train.steps},
        "share": plan.share,
        "parts": list(PARTS),
        "seeds": list(plan.seeds),
        "plain": {
            "method": PLAIN,
            "bits_per_byte": float(base.losses[:, -1].mean()),
            **_points(base),
        },
        "methods": rows,
        "skipped": skipped,
        "recipe": _recipe(given, plan, found, skipped, full),
        "warnings": [
            HONEST.format(share=plan.share, seeds=len(plan.seeds)),
            *_fading(plan, found),
        ],
        "cost": cost([*timed, *records.values()], plan.flops, rows),
        "machine": machine(),
        "commit": commit(),
        "versions": versions(),
    }


def _row(plan: Plan, one: Gain, records: Mapping[str, Record]) -> dict[str, Any]:
    arm = next(arm for arm in plan.arms if arm.name == one.method)
    words = {method.name: method.told for method in METHODS}
    words[TOGETHER] = "those that help alone"
    mine = line(plan, arm, records)
    points = {} if mine is None else _points(mine)
    told = {"told": words[one.method], "start_flops": arm.start}
    return {**one.to_dict(), **told, **points}


def _points(one: Line) -> dict[str, list[float]]:
    return {"flops": one.flops.tolist(), "losses": one.losses.mean(0).tolist()}


def _recipe(
    given: ExperimentConfig,
    plan: Plan,
    found: Sequence[Gain],
    skipped: Mapping[str, str],
    full: Path,
) -> dict[str, Any]:
    """The methods whose interval lies above 1; of several the best, unless they end
    lower together.
    """
    names, notes = _chosen(found, skipped)
    try:
        config = recommended(given, names, plan.flops)
        words, why = command(config, str(full)), ""
    except UserError as error:
        words, why = None, str(error)
    return {"methods": names, "command": words, "why": why, "notes": notes}


def _chosen(
    found: Sequence[Gain], skipped: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """(names of methods, what is to be said of the choice)."""
    alone = [one for one in found if one.helps and one.method != TOGETHER]
    names = [one.method for one in alone]
    if len(alone) < 2:
        return names, [] if alone else [NOTHING]
    best = min(alone, key=lambda one: one.loss)
    said = {"all": ", ".join(names), "best": best.method}
    both = [one for one in found if one.method == TOGETHER]
    if not both:
        why = skipped.get(TOGETHER, "not measured")
        return [best.method], [APART.format(why=why, **said)]
    if both[0].loss < best.loss:
        return names, [BETTER]
    return [best.method], [WORSE.format(**said)]


def _fading(plan: Plan, found: Sequence[Gain]) -> list[str]:
    """Which leads shrink so fast that little may be left of them."""
    away = -math.log2(plan.share)
    return [
        f"{one.method}: its lead falls from {one.leads[-2]:.3f} to {one.leads[-1]:.3f} "
        f"bits per byte between half of the largest budget and the whole; at this pace "
        f"it is gone after {one.doublings:.1f} doublings, and the full run is "
        f"{away:.1f} away."
        for one in found
        if one.helps and one.doublings < away
    ]


def cost(
    records: Sequence[Record], full: float, rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What a pilot has cost itself, evaluation included, whenever its runs were made.

    break_even_runs: full runs after which the lower bound of the best method's ratio
      has paid for it; None without such a method.
    """
    flops = sum(sum(record["flops"].values()) for record in records)
    seconds = sum(sum(record["seconds"].values()) for record in records)
    lows = [row["flops_ratio_ci_low"] for row in rows if row["helps"]]
    saved = full * (1 - 1 / max(lows, default=1.0))
    runs = break_even(float(flops), saved) if lows else None
    return {
        "flops": flops,
        "of_full": flops / full,
        "seconds": round(seconds, 1),
        "runs": len(records),
        "break_even_runs": runs,
    }


def text(found: Mapping[str, Any], out: Path) -> str:
    """The result as lines for a terminal."""
    rows = [
        f"{row['method']:<11}{ratio(row):<8} {interval(row):<16} {verdict(row)}"
        for row in found["methods"]
    ]
    rows += [f"{name:<11}not tried: {why}" for name, why in found["skipped"].items()]
    recipe, spent = found["recipe"], found["cost"]
    return "\n".join(
        (
            *rows,
            "",
            *recipe["notes"],
            *found["warnings"],
            f"cost: {units.flops(spent['flops'])}, {spent['of_full']:.1%} of the full "
            f"run, {spent['runs']} runs",
            f"page: {out / 'pilot.html'}",
            "",
            recipe["command"] or recipe["why"],
        )
    )
