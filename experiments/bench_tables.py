"""Writes the records of the ladder."""

import dataclasses
from pathlib import Path
from typing import Any

from experiments import arms
from experiments.baseline_rows import run_row
from experiments.bench_arms import PARTS, axes
from experiments.bench_counts import NOTE as NOTE_COUNTS
from experiments.bench_counts import rows as counts_rows
from experiments.bench_plan import Ladder
from experiments.bench_rows import Line, ladder_rows, made, recorded
from experiments.bench_times import Times, baseline_time, rung_times
from experiments.records import RESULTS, settings_hash, write_record
from experiments.runner import Results

NOTE = (
    "b0, b1, b2, b2m, b3 and oracle: runs of foundation.baseline_runs. + part: what "
    "the row above has, and that; b2m + part: it alone; uets: all; uets_core: the "
    "ideas without start and tables. A row of mixture without a mode selects nothing "
    "and is held to what b3 reaches in mode blind. _ratio_b0: at T1, what b0 reaches "
    "with U; other ratios at T2, what t2_arm reaches with U; the other arm's budget "
    "over this one's, higher is better. _ci: 95 % bootstrap over paired seeds, the "
    "target's included; _t: t-interval of the log ratio; None: no run bounds it. "
    "FLOPs hold statistics, scoring and all control. Seconds: steps times the median "
    "step, every arm's timed alone on one machine, and the start; evaluation and "
    "compilation left out; control_seconds_fraction: of the first shape's step, what "
    "selection and the learned rule take, by timing it without them. Quality: at the "
    "smallest budget that reaches T2 (else the largest), beside t2_arm's at U."
)


def write_tables(
    plan: Ladder, results: Results, runs: Path, out: Path, command: str, data: Path
) -> list[Path]:
    """Writes all of them as far as their runs are there; data: with texts to read."""
    config: dict[str, Any] = {
        "unit_flops": plan.options.unit,
        "width": arms.WIDTH,
        "length": arms.LENGTH,
        "vocab": arms.VOCAB,
        "trials": plan.options.trials,
        "parts": PARTS,
        "grids": {
            r.key: {a.name: list(a.values) for a in axes(r)} for r in plan.rungs()
        },
    }
    write = lambda name, rows, note: write_record(
        f"bench.{name}", rows, command, config, note, out=out
    )
    written = []
    trials = sorted_rows(results, "trial")
    if trials:
        written.append(write("trials", trials, "on valid-A with seed 0, at U/4"))
    finals = sorted_rows(results, "final")
    times = Times(runs / "times.json")
    ours = made(plan, results, rung_times(plan, results, times))
    if ours:
        written.append(write("runs", finals, "every final run, on valid-B"))
        known = [
            timed_anew(line, plan.options.stores, times)
            for line in recorded(RESULTS)
            if line.track in plan.options.tracks
        ]
        written.append(write("ladder", ladder_rows(known, ours), NOTE))
        counted = counts_rows(plan.options, data)
        written.append(write("counts", counted, NOTE_COUNTS))
    return written


def timed_anew(line: Line, stores: Path, times: Times) -> Line:
    """A baseline, its seconds those of this machine."""
    time = baseline_time(stores, next(iter(line.runs.values())), times)
    steps = {budget: run["steps"] for (budget, _), run in line.runs.items()}
    seconds = {budget: time.seconds(s) for budget, s in steps.items()}
    return dataclasses.replace(
        line,
        spent={**line.spent, "seconds": seconds},
        compile_seconds=time.compile_seconds,
        peak_bytes=time.peak_bytes,
    )


def sorted_rows(results: Results, stage: str) -> list[dict[str, Any]]:
    """The runs of a stage as flat rows."""
    mine = [r for r in results.values() if r["stage"] == stage]
    rows = [run_row(r) for r in sorted(mine, key=lambda r: r["name"])]
    marks = [settings_hash(r["config"]) for r in sorted(mine, key=lambda r: r["name"])]
    return [{**row, "settings_hash": m} for row, m in zip(rows, marks, strict=True)]
