"""From finished runs to the rows of the tables of baselines."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.baseline_plan import Baselines, Row
from experiments.foundation import training_flops
from experiments.runner import Measure, Results
from experiments.step_times import StepTime
from uets_jax.build import build
from uets_jax.config import ExperimentConfig, window_length
from uets_jax.data.store import prepare
from uets_jax.errors import UserError
from uets_jax.evaluate.tasks import evaluate_task, read_task
from uets_jax.measure.difference import break_even
from uets_jax.measure.target import (
    Curve,
    Target,
    brackets,
    budget_at,
    loss_at,
    ratio,
)
from uets_jax.step import Program, evaluated
from uets_jax.train.loop import Result
from uets_jax.types import Params

TASKS = {"blimp": 20, "lambada_dev": 300}  # items of each group, of 67 paradigms and 1
METRICS = ("blimp_accuracy", "lambada_dev_bits_per_byte")
CURRENCIES = ("flops", "tokens", "seconds")


def measure_with(data: Path) -> Measure:
    """Reads BLiMP and LAMBADA off a finished run; None where the files are missing."""

    def measure(result: Result) -> Mapping[str, Any]:
        program = build(result.config)
        return quality(result.config, program, evaluated(program, result.state), data)

    return measure


def quality(
    config: ExperimentConfig, program: Program, params: Params, data: Path
) -> dict[str, Any]:
    """Metrics of `TASKS`, whose files are in `data/evals`; None without one."""
    tokenizer = prepare(config.data).tokenizer
    found: dict[str, Any] = dict.fromkeys(METRICS)
    for name, limit in TASKS.items():
        path = data / "evals" / f"{name}.jsonl.xz"
        if path.exists():
            task, length = read_task(path), window_length(config)
            told = evaluate_task(program, params, tokenizer, task, length, limit=limit)
            found |= told.metrics
    return found


def run_row(record: Mapping[str, Any]) -> dict[str, Any]:
    """A run as a flat row: its labels, what it reached, what it cost."""
    dropped = {"config", "config_hash", "flops", "seconds", "versions", "name"}
    kept = {k: v for k, v in record.items() if k not in dropped}
    plain = {k: v for k, v in kept.items() if not isinstance(v, dict | list)}
    if record["diverged"]:
        return plain
    by_category = {f"{k}_flops": v for k, v in record["flops"].items()}
    seconds = {"train_seconds": record["seconds"].get("train")}
    return {**plain, "total_flops": training_flops(record), **by_category, **seconds}


def tuning_rows(results: Results) -> list[dict[str, Any]]:
    """Every trial, in the order of their stages and names."""
    trials = [r for r in results.values() if r["stage"] != "final"]
    return [run_row(r) for r in sorted(trials, key=lambda r: r["name"])]


def final_rows(results: Results) -> list[dict[str, Any]]:
    """Every final run."""
    finals = [r for r in results.values() if r["stage"] == "final"]
    return [run_row(r) for r in sorted(finals, key=lambda r: r["name"])]


@dataclasses.dataclass(frozen=True)
class Arm:
    """The final runs of a row: one record per (budget in units, seed).

    statistics_flops: of cleaning the pool, charged to every run.
    diverged: seeds of which a run did, which are in no figure.
    tuning: (runs, FLOPs) of the trials that led to the row's settings.
    """

    row: Row
    records: Mapping[tuple[float, int], Mapping[str, Any]]
    time: StepTime
    statistics_flops: int = 0
    diverged: tuple[int, ...] = ()
    tuning: tuple[int, int] = (0, 0)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the runs."""
        return tuple(sorted({seed for _, seed in self.records}))

    @property
    def budgets(self) -> tuple[float, ...]:
        """In units, ascending."""
        return tuple(sorted({budget for budget, _ in self.records}))

    def losses(self, budget: float) -> np.ndarray:
        """Bits per byte of each seed."""
        return np.array([self.records[budget, s]["bits_per_byte"] for s in self.seeds])

    def target(self, budget: float = 1.0) -> Target:
        """What this arm reaches at a budget."""
        return Target(self.losses(budget), self.seeds)

    def spent(self, currency: str, budget: float) -> float:
        """FLOPs, tokens or seconds of training at a budget, per run."""
        record = self.records[budget, self.seeds[0]]
        if currency == "tokens":
            return float(record["tokens"])
        if currency == "seconds":
            return record["steps"] * self.time.step_seconds
        return float(training_flops(record) + self.statistics_flops)

    def curve(self, currency: str) -> Curve:
        """Bits per byte against what was spent."""
        spent = np.array([self.spent(currency, b) for b in self.budgets])
        losses = np.stack([self.losses(b) for b in self.budgets], axis=1)
        return Curve(spent, losses, self.seeds)


def arms_of(
    plan: Baselines,
    results: Results,
    times: Mapping[str, StepTime],
    statistics: Mapping[str, int],
) -> list[Arm]:
    """The arms whose final runs are all there."""
    rows = plan.rows(results, [])
    found = []
    for row in rows:
        jobs = [*plan.finals(row, rows, results)]
        if all(job.name in results for job in jobs):
            labels = [dict(job.labels) for job in jobs]
            keys = [(label["budget_units"], label["seed"]) for label in labels]
            records = [results[job.name] for job in jobs]
            runs = dict(zip(keys, records, strict=True))
            lost = {seed for (_, seed), r in runs.items() if r["diverged"]}
            runs = {key: r for key, r in runs.items() if key[1] not in lost}
            if not runs:
                raise UserError(f"{row.track}/{row.name}: a run of every seed diverged")
            spent, cost = statistics.get(row.text, 0), tuning(row, results)
            lost = tuple(sorted(lost))
            found.append(Arm(row, runs, times[step_key(row)], spent, lost, cost))
    return found


def tuning(row: Row, results: Results) -> tuple[int, int]:
    """(runs, FLOPs) of the trials of a row's recipe, on clean and on its own texts."""
    family = row.text.rpartition(".")[0] or row.text  # all shares of b3 in one mode
    texts = {"clean", *((family,) if row.track == "mixture" else ())}
    mine = [
        r
        for r in results.values()
        if r["stage"] != "final"
        and r["recipe"] == row.choice.arm
        and (r["text"] in texts or r["text"].startswith(f"{family}."))
    ]
    return len(mine), sum(training_flops(r) for r in mine if not r["diverged"])


def step_key(row: Row) -> str:
    """Names the compiled step of a row."""
    batch = dict(row.choice.settings)["batch"]
    return f"{row.choice.arm}_d{row.choice.depth}_b{batch}"


def baseline_rows(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """The table: every arm of every track against b0 at T1, and what it reaches.

    `uniform`, the control of the selection tables, is b2 on the whole pool: the same
    runs under another name.
    """
    rows = []
    for arm in arms:
        base = next(
            a for a in arms if a.row.arm == "b0" and a.row.track == arm.row.track
        )
        rows.append({**_reached(arm), **_against(base, arm), **_settings(arm)})
        if (arm.row.arm, arm.row.track) == ("b2", "mixture"):
            rows.append({**rows[-1], "arm": "uniform"})
    return rows


def _reached(arm: Arm) -> dict[str, Any]:
    """At U: bits per byte with a t-interval over seeds, what it cost, downstream."""
    row, at_unit = arm.row, [arm.records[1.0, seed] for seed in arm.seeds]
    bits = arm.losses(1.0)
    n = len(bits)
    half = _student(n) * bits.std(ddof=1) / math.sqrt(n) if n > 1 else None
    return {
        "arm": row.arm,
        "track": row.track,
        "mode": row.mode or None,
        "seeds": n,
        "diverged_seeds": len(arm.diverged),
        "depth": row.choice.depth,
        "bits_per_byte": bits.mean(),
        "bits_per_byte_ci_low": None if half is None else bits.mean() - half,
        "bits_per_byte_ci_high": None if half is None else bits.mean() + half,
        "tokens": at_unit[0]["tokens"],
        "total_flops": int(arm.spent("flops", 1.0)),
        "train_seconds": arm.spent("seconds", 1.0),
        "compile_seconds": arm.time.compile_seconds,
        "step_peak_bytes": arm.time.peak_bytes,
        "joules": None,
        "params": at_unit[0]["params"],
        **{name: _mean(at_unit, name) for name in METRICS},
        "statistics_flops": arm.statistics_flops,
        "tuning_runs": arm.tuning[0],
        "tuning_flops": arm.tuning[1],
    }


def _student(n: int) -> float:
    """The 97.5 % quantile of Student's t with n - 1 degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, 0.975))


def _mean(records: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [record.get(name) for record in records]
    return None if None in values else float(np.mean(np.array(values, float)))


def _against(base: Arm, arm: Arm) -> dict[str, Any]:
    """What it takes to reach T1, and how many times less than b0."""
    target = base.target()
    goal = float(target.losses.mean())
    found: dict[str, Any] = {"t1_bits_per_byte": goal}
    for currency in CURRENCIES:
        curve, reference = arm.curve(currency), base.curve(currency)
        found[f"{currency}_to_t1"] = budget_at(curve, goal)
        for name, one in {
            "ci": ratio(reference, curve, target),
            "t": ratio(reference, curve, target, method="t"),
        }.items():
            key = f"{currency}_ratio_b0"
            found[key] = one.value
            found[f"{key}_{name}_low"] = one.low
            found[f"{key}_{name}_high"] = one.high if math.isfinite(one.high) else None
    found["t1_bracketed_within_2x"] = brackets(arm.curve("flops"), goal)
    needed = found["flops_to_t1"]
    known = needed is not None and arm is not base
    saved = base.spent("flops", 1.0) - float(needed or 0.0) if known else 0.0
    repaid = break_even(float(arm.tuning[1]), saved)
    found["break_even_runs"] = repaid if math.isfinite(repaid) else None
    tokens, curve = arm.spent("tokens", 1.0), base.curve("tokens")
    inside = curve.budgets[0] <= tokens <= curve.budgets[-1]
    equal = loss_at(curve, tokens).mean() if inside else None
    found["b0_bits_per_byte_at_equal_tokens"] = equal
    seconds, compiling = found["seconds_to_t1"], arm.time.compile_seconds
    base_seconds = base.spent("seconds", 1.0) + base.time.compile_seconds
    found["seconds_ratio_b0_with_compilation"] = (
        None if seconds is None else base_seconds / (seconds + compiling)
    )
    return found


def _settings(arm: Arm) -> dict[str, Any]:
    """How the arm was set, and on which text."""
    return {"recipe": arm.row.choice.arm, "text": arm.row.text} | dict(
        arm.row.choice.settings
    )


def targets(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """T1 and T2 of every track: what the project has to beat, and at what cost.

    T2 is what static cleaning (b3, in each mode) reaches with U on mixture; on clean
    what the better of b2 and b2m does.
    """
    found = []
    for track in dict.fromkeys(arm.row.track for arm in arms):
        here = [arm for arm in arms if arm.row.track == track]
        base = next(arm for arm in here if arm.row.arm == "b0")
        found.append(_target("T1", base))
        names = ("b3",) if track == "mixture" else ("b2", "b2m")
        best = [arm for arm in here if arm.row.arm in names]
        if track == "clean" and best:
            best = [min(best, key=lambda arm: arm.losses(1.0).mean())]
        found += [_target("T2", arm) for arm in best]
    return found


def _target(name: str, arm: Arm) -> dict[str, Any]:
    bits = arm.losses(1.0)
    return {
        "target": name,
        "track": arm.row.track,
        "mode": arm.row.mode or None,
        "arm": arm.row.arm,
        "seeds": len(bits),
        "bits_per_byte": bits.mean(),
        "bits_per_byte_sd": bits.std(ddof=1) if len(bits) > 1 else None,
        "total_flops": int(arm.spent("flops", 1.0)),
        "tokens": int(arm.spent("tokens", 1.0)),
        "train_seconds": arm.spent("seconds", 1.0),
    }
