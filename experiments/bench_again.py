"""Runs one row of the ladder again with its settings, and compares."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench_arms import MODES, Rung, axes, ladder
from experiments.bench_plan import Ladder, Options
from experiments.records import read_record
from experiments.runner import run_queue
from uets_jax.errors import UserError, nearest
from uets_jax.measure.machine import commit

LARGEST = 0.25  # in units, with `quick`
CLOSE = 0.002  # bits per byte: machines differ by less


def find(row: str) -> Rung:
    """The rung of `track/name` or `track/name/mode`, such as `clean/uets`.

    Raises:
      UserError: for a rung that the ladder doesn't have.
    """
    rungs = {rung.path: rung for track in MODES for rung in ladder(track)}
    if row not in rungs:
        raise UserError(f"--row {row}: {nearest(row, rungs)}")
    return rungs[row]


def on_record(rung: Rung, out: Path) -> list[dict[str, Any]]:
    """The rung's final runs.

    Raises:
      UserError: if there are none.
    """
    key = rung.track, rung.name, rung.mode
    runs = [
        run
        for run in read_record("bench.runs", out)["rows"]
        if (run["track"], run["arm"], run["mode"]) == key and not run["diverged"]
    ]
    if not runs:
        raise UserError(f"{rung.track}/{rung.name}: no runs on record in {out}")
    return runs


def again(
    rung: Rung,
    options: Options,
    runs: Path,
    out: Path,
    quick: bool,
    say: Callable[[str], None] = print,
) -> bool:
    """Whether every budget's mean is as close to the record as its seeds let expect.

    Args:
      rung: to run.
      options: of the command line.
      runs: folder of the queue.
      out: folder of the records.
      quick: seed 1 alone, at budgets up to `LARGEST`.
    """
    known = on_record(rung, out)
    names = [axis.name for axis in axes(rung)]
    settings = {name: known[0][name] for name in names}
    plan = Ladder(options, known={rung: settings})
    budgets = sorted({run["budget_units"] for run in known})
    budgets = [b for b in budgets if not quick or b <= LARGEST]
    jobs = [job for b in budgets for job in plan.seeds(rung, settings, b)]
    if quick:
        jobs = [job for job in jobs if dict(job.labels)["seed"] == 1]
    where = runs / "again" / (commit() or "unknown")[:12]  # another program, other runs
    results = run_queue(lambda _: jobs, where, say)
    close = True
    for budget in budgets:
        now = [
            r["bits_per_byte"] for r in results.values() if r["budget_units"] == budget
        ]
        then = [r["bits_per_byte"] for r in known if r["budget_units"] == budget]
        low, high = spread(then)
        inside = None not in now and low <= np.mean(now) <= high
        close &= bool(inside)
        told = ", ".join("diverged" if b is None else f"{b:.4f}" for b in now)
        say(
            f"{rung.track}/{rung.name} {budget:g} U: {told} now; on record "
            f"{np.mean(then):.4f} [{low:.4f}, {high:.4f}]"
            f"{'' if inside else '  OUTSIDE'}"
        )
    if quick:
        say("one seed: not significant; a ratio needs --row with all seeds")
    return close


def spread(bits: list[float]) -> tuple[float, float]:
    """Three standard deviations around the mean, and `CLOSE`."""
    half = CLOSE + (3 * float(np.std(bits, ddof=1)) if len(bits) > 1 else 0.0)
    return float(np.mean(bits)) - half, float(np.mean(bits)) + half
