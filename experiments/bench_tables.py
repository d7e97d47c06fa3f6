"""Writes the records of the ladder."""

import dataclasses
from pathlib import Path
from typing import Any

from experiments import arms
from experiments.baseline_rows import run_row
from experiments.bench_arms import PARTS, axes
from experiments.bench_plan import TUNED, Ladder
from experiments.bench_rows import RungTime, ladder_rows, made, recorded
from experiments.records import RESULTS, settings_hash, write_record
from experiments.runner import Results, read_file
from experiments.step_times import StepTime, step_time
from uets_jax.config import ExperimentConfig
from uets_jax.growth.stages import ladder as stages_of
from uets_jax.growth.stages import parse
from uets_jax.train.files import write_json

NOTE = (
    "b0, b1, b2, b2m, b3 and oracle: runs of foundation.baseline_runs. + part: what "
    "the row above has, and that; b2m + part: it alone; uets: all; uets_core: the "
    "ideas without start and tables. _ratio_b0: at T1, what b0 reaches with U; other "
    "ratios at T2, what t2_arm reaches with U; the other arm's budget over this "
    "one's, higher is better. _ci: 95 % bootstrap over paired seeds, the target's "
    "included; _t: t-interval of the log ratio; None: no run bounds it. FLOPs hold "
    "statistics, scoring and all control. Seconds: steps times the median step, timed "
    "alone, and the start; evaluation and compilation left out. Quality: at the "
    "smallest budget that reaches T2 (else the largest), beside t2_arm's at U."
)


def rung_times(plan: Ladder, results: Results, runs: Path) -> dict[str, RungTime]:
    """Of every rung whose settings are known, each shape of its model timed alone."""
    path = runs / "times.json"
    known = read_file(path) or {"config_hash": "", "steps": {}}
    found = {}
    for rung in plan.rungs():
        settings = plan.tuned(rung, results, [])
        if settings is None:
            continue
        config = next(plan.seeds(rung, settings, TUNED)).config
        stages = []
        for share, stage in shares(config):
            key = settings_hash(dataclasses.asdict(alone(stage)))
            if key not in known["steps"]:
                known["steps"][key] = dataclasses.asdict(step_time(alone(stage)))
                write_json(path, known)
            stages.append((share, StepTime(**known["steps"][key])))
        found[rung.key] = RungTime(tuple(stages))
    return found


def shares(config: ExperimentConfig) -> list[tuple[float, ExperimentConfig]]:
    """(share of the steps, config) of every stage of a run's growth."""
    starts = [0.0, *(stage.share for stage in parse(config.growth)), 1.0]
    configs = stages_of(config)
    return [(starts[i + 1] - starts[i], one) for i, one in enumerate(configs)]


def alone(config: ExperimentConfig) -> ExperimentConfig:
    """The run without growth and of one length, so that equal steps are timed once."""
    usual = ExperimentConfig()
    train = dataclasses.replace(config.train, steps=1000, seed=0)
    optim = dataclasses.replace(config.optim, learning_rate=0.01, warmup=0)
    return dataclasses.replace(
        config, name="step", growth=usual.growth, train=train, optim=optim
    )


def write_tables(
    plan: Ladder, results: Results, runs: Path, out: Path, command: str
) -> list[Path]:
    """Writes all three as far as their runs are there."""
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
    ours = made(plan, results, rung_times(plan, results, runs))
    if ours:
        written.append(write("runs", finals, "every final run, on valid-B"))
        known = [k for k in recorded(RESULTS) if k.track in plan.options.tracks]
        written.append(write("ladder", ladder_rows(known, ours), NOTE))
    return written


def sorted_rows(results: Results, stage: str) -> list[dict[str, Any]]:
    """The runs of a stage as flat rows."""
    mine = [r for r in results.values() if r["stage"] == stage]
    rows = [run_row(r) for r in sorted(mine, key=lambda r: r["name"])]
    marks = [settings_hash(r["config"]) for r in sorted(mine, key=lambda r: r["name"])]
    return [{**row, "settings_hash": m} for row, m in zip(rows, marks, strict=True)]
