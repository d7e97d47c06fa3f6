"""Writes the records of the baselines."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import arms, search
from experiments.baseline_plan import ARMS, SHARES, STAGES, TRIALS, Baselines, Row
from experiments.baseline_rows import (
    TASKS,
    arms_of,
    baseline_rows,
    final_rows,
    step_key,
    targets,
    tuning_rows,
)
from experiments.records import write_record
from experiments.runner import Results, read_file
from experiments.step_times import StepTime, step_time
from uets_jax.train.files import write_json

NOTE = (
    "T1: b0 at U. _ratio_b0: b0's budget at T1 over the arm's, higher is better; "
    "_ci: 95 % bootstrap over paired seeds, the target's included (3 seeds: 27 draws, "
    "too narrow); _t: t-interval of the log ratio. total_flops: forward, backward, "
    "optimizer and statistics. Seconds: steps times the median step, timed alone."
)


def write_tables(
    plan: Baselines, results: Results, runs: Path, out: Path, command: str
) -> list[Path]:
    """Writes `foundation.tuning`, and the others as far as their runs are there."""
    rows = plan.rows(results, [])
    config = {
        "unit_flops": plan.options.unit,
        "width": arms.WIDTH,
        "length": arms.LENGTH,
        "vocab": arms.VOCAB,
        "trials": TRIALS,
        "grids": {arm: _grid(arm) for arm in ARMS},
        "on_an_edge": {f"{r.track}/{r.name}": on_an_edge(r) for r in rows},
        "not_bracketed": {arm: not_bracketed(arm, results) for arm in ARMS},
        "tasks": TASKS,
    }
    write = lambda name, rows, note: write_record(
        f"foundation.{name}", rows, command, config, note, out=out
    )
    trials = tuning_rows({**trials_on_disk(runs), **results})
    note = "every trial, on valid-A with seed 0; diverged ones have no bits per byte"
    written = [write("tuning", trials, note)]
    if rows and not plan.options.tune_only:
        times = step_times(plan, rows, runs)
        found = arms_of(plan, results, times, statistics(plan, rows))
        note = "every final run, on valid-B"
        written += [write("baseline_runs", final_rows(results), note)]
        written += [write("baselines", baseline_rows(found), NOTE)]
        written += [write("targets", targets(found), "what an arm reaches with U")]
    return written


def trials_on_disk(runs: Path) -> Results:
    """Every trial that was ever made there, those that a wider grid passed by, too."""
    paths = [path for stage in STAGES for path in (runs / stage).rglob("*_s0.json")]
    records = [read_file(path) for path in paths]
    return {record["name"]: record for record in records if record is not None}


def _grid(arm: str) -> dict[str, list[Any]]:
    return {axis.name: list(axis.values) for axis in arms.axes(arm)}


def losses(arm: str, results: Results) -> dict[search.Point, Any]:
    """Bits per byte of an arm's trials on clean, by their places on the grids."""
    axes = arms.axes(arm)
    found = {}
    for record in results.values():
        if record["stage"] == "tune" and record["arm"] == arm:
            places = (axis.values.index(record[axis.name]) for axis in axes)
            found[tuple(places)] = record["bits_per_byte"]
    return found


def on_an_edge(row: Row) -> list[str]:
    """Settings of a row that are the last of their grid."""
    axes, settings = arms.axes(row.choice.arm), dict(row.choice.settings)
    point = tuple(axis.values.index(settings[axis.name]) for axis in axes)
    share = row.text.rpartition(f"{row.mode}.")[2] if row.mode else ""
    ends = {f"{SHARES[0]:g}", f"{SHARES[-1]:g}"}
    return search.edges(axes, point) + (["share"] if share in ends else [])


def not_bracketed(arm: str, results: Results) -> list[str]:
    """Settings of which a neighbour of the best trial's value was not tried."""
    return search.unbracketed(arms.axes(arm), losses(arm, results))


def step_times(plan: Baselines, rows: Sequence[Row], runs: Path) -> dict[str, StepTime]:
    """Of every row's step; measured once and kept in `runs/step_times.json`."""
    path = runs / "step_times.json"
    known = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for row in rows:
        if step_key(row) not in known:
            job = next(plan.seeds(row, 1.0))
            known[step_key(row)] = dataclasses.asdict(step_time(job.config))
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, known)
    return {name: StepTime(**values) for name, values in known.items()}


def statistics(plan: Baselines, rows: Sequence[Row]) -> dict[str, int]:
    """FLOPs (integer operations, too) of cleaning each row's text."""
    found = {}
    for text in {row.text for row in rows}:
        path = plan.options.stores / f"{text}.json"
        if path.exists():
            said = json.loads(path.read_text("utf-8"))
            found[text] = said.get("statistics_flops", 0)
    return found
