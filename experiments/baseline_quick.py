"""Runs one row of the table of baselines again, with one seed, and compares."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from experiments import arms, tracks
from experiments.records import read_record
from experiments.runner import Job, run_queue
from uets_jax.errors import UserError, nearest

LARGEST = 0.5  # in units: the budgets that end in minutes
CLOSE = 0.005  # bits per byte: one core or two changes the fourth digit
ALIKE = {"mixture/uniform": "mixture/b2"}  # rows of the same runs


def recorded(row: str, results: Path) -> list[dict[str, Any]]:
    """The final runs of a row that are run again: seed 1, the smaller budgets.

    Args:
      row: `track/arm` or `track/arm_mode`, such as `clean/b2`.
      results: folder of `foundation.baseline_runs`.

    Raises:
      UserError: for a row that the record doesn't have.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    row = ALIKE.get(row, row)
    for run in read_record("foundation.baseline_runs", results)["rows"]:
        name = "_".join(part for part in (run["arm"], run["mode"]) if part)
        found.setdefault(f"{run['track']}/{name}", []).append(run)
    if row not in found:
        raise UserError(f"--quick {row}: {nearest(row, found)}")
    runs = [run for run in found[row] if run["seed"] == 1]
    return [run for run in runs if run["budget_units"] <= LARGEST]


def job(run: Mapping[str, Any], stores: Path, unit: float) -> Job:
    """The run of a recorded row."""
    settings = {axis.name: run[axis.name] for axis in arms.axes(run["recipe"])}
    source = tracks.store(stores, run["text"], "b")
    budget = run["budget_units"]
    config = arms.config(
        run["recipe"], source, settings, run["depth"], budget * unit, run["seed"]
    )
    name = f"{run['track']}_{run['arm']}_{run['mode']}_{budget:g}"
    labels = (("stage", "quick"), ("budget_units", budget))
    return Job(f"quick/{name}", config, labels)


def again(
    row: str,
    runs: Path,
    results: Path,
    say: Callable[[str], None] = print,
) -> bool:
    """Runs the row again; whether every run is as close as `CLOSE` to its record."""
    wanted = recorded(row, results)
    unit = read_record("foundation.baseline_runs", results)["config"]["unit_flops"]
    jobs = [job(run, runs / "data", unit) for run in wanted]
    found = run_queue(lambda _: jobs, runs, say)
    close = True
    for run, one in zip(wanted, jobs, strict=True):
        now, then = found[one.name]["bits_per_byte"], run["bits_per_byte"]
        close &= now is not None and abs(now - then) <= CLOSE
        found_now = "diverged" if now is None else f"{now:.4f}"
        say(f"{row} {run['budget_units']:g} U: {found_now} now, {then:.4f} recorded")
    return close
