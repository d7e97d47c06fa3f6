"""From finished runs to the rows of the ladder."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench_arms import Rung
from experiments.bench_plan import Ladder
from experiments.bench_times import RungTime
from experiments.foundation import training_flops
from experiments.records import read_record
from experiments.runner import Results
from uets_jax.errors import UserError
from uets_jax.measure.target import Curve, Target, budget_at, loss_at, ratio

CURRENCIES = ("flops", "tokens", "seconds")
CONTROL = ("scoring", "probe", "policy", "growth")  # FLOPs of deciding
QUALITY = ("blimp_accuracy", "lambada_dev_bits_per_byte")
T2_ARMS = ("b2", "b2m", "b3")
STRONGEST = "b2m + start"  # the best arm without tables larger than b2m's
TOLD = (
    1 / 64,
    9 / 512,
    3 / 128,
    1 / 32,
    1 / 16,
    1 / 8,
    1 / 4,
    1 / 2,
    1.0,
)  # budgets with a column
Record = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Line:
    """The final runs of an arm: what each (budget in units, seed) reached and spent.

    spent: by currency and budget, the same for all seeds.
    start_flops: of `spent["flops"]`, before the first step.
    control: share of a step's seconds that deciding takes; None: not timed.
    """

    arm: str
    track: str
    mode: str
    runs: Mapping[tuple[float, int], Record]
    spent: Mapping[str, Mapping[float, float]]
    compile_seconds: float | None = None
    peak_bytes: int | None = None
    start_flops: int = 0
    control: float | None = None

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the runs."""
        return tuple(sorted({seed for _, seed in self.runs}))

    @property
    def budgets(self) -> tuple[float, ...]:
        """In units, ascending, of which every seed has a sound run."""
        whole = {b for b, _ in self.runs if not self._lacks(b)}
        return tuple(sorted(whole))

    def _lacks(self, budget: float) -> bool:
        runs = [self.runs.get((budget, seed)) for seed in self.seeds]
        return any(run is None or run["bits_per_byte"] is None for run in runs)

    def losses(self, budget: float) -> np.ndarray:
        """Bits per byte of each seed."""
        return np.array([self.runs[budget, s]["bits_per_byte"] for s in self.seeds])

    def curve(self, currency: str) -> Curve:
        """Bits per byte against what was spent."""
        spent = np.array([self.spent[currency][b] for b in self.budgets])
        losses = np.stack([self.losses(b) for b in self.budgets], axis=1)
        return Curve(spent, losses, self.seeds)

    def target(self) -> Target:
        """What this arm reaches with U.

        Raises:
          UserError: without runs at U.
        """
        if 1.0 not in self.budgets:
            raise UserError(f"{self.track}/{self.arm}: no runs at U on record")
        return Target(self.losses(1.0), self.seeds)


def recorded(out: Path) -> list[Line]:
    """The baselines as lines, from their records.

    Raises:
      UserError: without them.
    """
    found: dict[tuple[str, str, str], dict[tuple[float, int], Record]] = {}
    for run in read_record("foundation.baseline_runs", out)["rows"]:
        key = run["arm"], run["track"], run["mode"] or ""
        found.setdefault(key, {})[run["budget_units"], run["seed"]] = run
    about = {
        (row["arm"], row["track"], row["mode"] or ""): row
        for row in read_record("foundation.baselines", out)["rows"]
    }
    return [_recorded(key, runs, about[key]) for key, runs in found.items()]


def _recorded(
    key: tuple[str, str, str], runs: Mapping[tuple[float, int], Record], about: Record
) -> Line:
    first = min(seed for _, seed in runs)
    one = {budget: run for (budget, seed), run in runs.items() if seed == first}
    step_seconds = about["train_seconds"] / one[1.0]["steps"]
    cleaning = about["statistics_flops"] or 0
    spent = {
        "flops": {b: float(run["total_flops"] + cleaning) for b, run in one.items()},
        "tokens": {b: float(run["tokens"]) for b, run in one.items()},
        "seconds": {b: run["steps"] * step_seconds for b, run in one.items()},
    }
    last = (about["compile_seconds"], about["step_peak_bytes"], cleaning)
    return Line(*key, runs, spent, *last)


def targets(lines: Sequence[Line]) -> dict[tuple[str, str], tuple[float, float]]:
    """(T1, T2) in bits per byte by track and mode; see `PROTOCOL`.

    T1 is what b0 reaches with U, T2 what b3 (in the mode) does, on clean the better of
    b2 and b2m. An arm without a mode, on a track that has them, is held to blind.
    """
    found = {}
    for track in dict.fromkeys(line.track for line in lines):
        here = [line for line in lines if line.track == track]
        modes = [line.mode for line in here if line.arm == "b3"] or [""]
        for mode in modes:
            t1 = named(here, "b0").target().losses.mean()
            t2 = yardstick(here, mode).target().losses.mean()
            found[track, mode] = float(t1), float(t2)
        found.setdefault((track, ""), found[track, unseeing(modes)])
    return found


def yardstick(lines: Sequence[Line], mode: str) -> Line:
    """The line whose loss at U is T2, of the lines of one track."""
    strong = [line for line in lines if line.arm == "b3" and line.mode == mode]
    strong = strong or [line for line in lines if line.arm in ("b2", "b2m")]
    return min(strong, key=lambda line: line.target().losses.mean())


def named(lines: Sequence[Line], arm: str, mode: str = "") -> Line:
    """The line of an arm; one without a mode serves all of them.

    Raises:
      UserError: if there is none.
    """
    for line in lines:
        if line.arm == arm and line.mode in (mode, ""):
            return line
    raise UserError(f"{arm}: not on record; run python -m experiments.baselines")


def made(
    plan: Ladder, results: Results, times: Mapping[str, RungTime]
) -> list[tuple[Rung, Line]]:
    """The lines of the rungs whose final runs are all there."""
    found = []
    for rung in plan.rungs():
        settings = plan.tuned(rung, results, [])
        if settings is None:
            continue
        jobs = [*plan.finals(rung, settings, results)]
        if not all(job.name in results for job in jobs):
            continue
        labels = [dict(job.labels) for job in jobs]
        keys = [(label["budget_units"], label["seed"]) for label in labels]
        runs = {k: results[j.name] for k, j in zip(keys, jobs, strict=True)}
        found.append((rung, _made(rung, runs, times[rung.key])))
    return found


def _made(rung: Rung, runs: Mapping[tuple[float, int], Record], time: RungTime) -> Line:
    sound = {k: r for k, r in runs.items() if not r["diverged"]}
    one = {budget: run for (budget, _), run in reversed(sound.items())}
    spent = {
        "flops": {b: float(training_flops(run)) for b, run in one.items()},
        "tokens": {b: float(run["tokens"]) for b, run in one.items()},
        "seconds": {b: time.seconds(run["steps"]) for b, run in one.items()},
    }
    return Line(
        rung.name,
        rung.track,
        rung.mode,
        runs,
        spent,
        time.compile_seconds,
        time.peak_bytes,
        control=time.control,
    )


def ladder_rows(
    known: Sequence[Line], ours: Sequence[tuple[Rung, Line]]
) -> list[dict[str, Any]]:
    """The table: every arm against b0 at T1 and the strong baselines at T2."""
    rows = []
    for rung, line in [*((None, k) for k in known), *ours]:
        here = [k for k in known if k.track == line.track]
        row = {**_about(rung, line), **against(here, line)}
        tuned = [o for _, o in ours if (o.arm, o.track) == (STRONGEST, line.track)]
        row |= over_tuned(tuned, line)
        if row["reads_all_text"]:  # its steps are not all that it has read
            row |= {k: None for k in row if k.startswith("tokens_ratio")}
        rows.append(row)
    return rows


def over_tuned(tuned: Sequence[Line], line: Line) -> dict[str, Any]:
    """The ratio to `STRONGEST`, at what that reaches with U; None where it has no such
    runs.
    """
    key = "flops_ratio_tuned"
    if not tuned or 1.0 not in tuned[0].budgets:
        return dict.fromkeys(_names(key))
    return _ratio(key, tuned[0], line, tuned[0].target(), "flops")


def _about(rung: Rung | None, line: Line) -> dict[str, Any]:
    """What an arm is, what it reaches at each budget."""
    row: dict[str, Any] = {
        "arm": line.arm,
        "track": line.track,
        "mode": line.mode or None,
        "base": rung.base if rung else None,
        "parts": " ".join(rung.parts) if rung else None,
        "seeds": len(line.seeds),
        "diverged_runs": sum(r["bits_per_byte"] is None for r in line.runs.values()),
        "params": next(iter(line.runs.values())).get("params"),
        "reads_all_text": bool(rung and "start" in rung.parts),
    }
    least = min(line.budgets, default=None)
    row["least_units"] = least
    row["bits_per_byte_least"] = least and float(line.losses(least).mean())
    for budget in TOLD:
        there = budget in line.budgets
        row[f"bits_per_byte_u{budget:g}"] = (
            float(line.losses(budget).mean()) if there else None
        )
    row["peak_memory_bytes"] = line.peak_bytes
    row["compile_seconds"] = line.compile_seconds
    row["control_seconds_fraction"] = line.control
    return row


def against(here: Sequence[Line], line: Line) -> dict[str, Any]:
    """Ratios to b0 at T1, to the strong baselines at T2; quality where T2 is reached.

    Args:
      here: the baselines of the line's track.
      line: an arm; one without a mode is compared with what is blind.
    """
    base, strong = named(here, "b0"), yardstick(here, _mode(here, line))
    found: dict[str, Any] = {}
    for currency in CURRENCIES:
        key = f"{currency}_ratio_b0"
        found |= _ratio(key, base, line, base.target(), currency)
    found["joules_ratio_b0"] = None
    for name in T2_ARMS:
        try:
            other = named(here, name, _mode(here, line))
        except UserError:
            continue
        found |= _ratio(f"flops_ratio_{name}", other, line, strong.target(), "flops")
    found |= _ratio("seconds_ratio_t2", strong, line, strong.target(), "seconds")
    found["t2_arm"] = strong.arm
    found["flops_to_t2"] = _crossing(line, float(strong.target().losses.mean()))
    found["loss_at_equal_flops"] = _at(line, base.spent["flops"][1.0])
    return found | quality(line, strong) | control(line)


def _mode(here: Sequence[Line], line: Line) -> str:
    modes = [other.mode for other in here if other.arm == "b3"]
    return line.mode or unseeing(modes or [""])


def unseeing(modes: Sequence[str]) -> str:
    """The mode of an arm that has none: it has seen no text of the target."""
    return "blind" if "blind" in modes else modes[0]


def _ratio(
    key: str, base: Line, line: Line, target: Target, currency: str
) -> dict[str, Any]:
    """A ratio with its bootstrap and t-intervals; None where nothing bounds it."""
    names = _names(key)
    if len(line.budgets) < 2:
        return dict.fromkeys(names)
    curves = base.curve(currency), line.curve(currency)
    spread = ratio(*curves, target)
    found = {key: spread.value, **_ends(f"{key}_ci", spread)}
    if spread.value is None or not line.seeds == base.seeds == target.seeds:
        return {**found, **dict.fromkeys(names[3:])}
    return {**found, **_ends(f"{key}_t", ratio(*curves, target, method="t"))}


def _names(key: str) -> list[str]:
    """Of a ratio and the ends of its intervals."""
    return [key, *(f"{key}_{m}_{end}" for m in ("ci", "t") for end in ("low", "high"))]


def _ends(key: str, one: Any) -> dict[str, Any]:
    high = one.high if math.isfinite(one.high) else None
    return {f"{key}_low": one.low, f"{key}_high": high}


def _crossing(line: Line, goal: float) -> float | None:
    return budget_at(line.curve("flops"), goal) if len(line.budgets) > 1 else None


def _at(line: Line, flops: float) -> float | None:
    """Mean loss at a budget in FLOPs, None outside of the line's."""
    if len(line.budgets) < 2:
        return None
    curve = line.curve("flops")
    near = min(curve.budgets, key=lambda b: abs(b - flops))
    flops = near if abs(near / flops - 1) < 0.02 else flops
    inside = curve.budgets[0] <= flops <= curve.budgets[-1]
    return float(loss_at(curve, flops).mean()) if inside else None


def quality(line: Line, strong: Line) -> dict[str, Any]:
    """BLiMP and last words at the smallest budget that reaches T2 (where none does, at
    the largest), at the largest, and the baseline's at U.
    """
    goal = strong.target().losses.mean()
    reached = [b for b in line.budgets if line.losses(b).mean() <= goal]
    found: dict[str, Any] = {}
    for name in QUALITY:
        most = max(line.budgets, default=None)
        for label, one, budget in (
            ("", line, min(reached) if reached else most),
            ("_most", line, most),
            ("_baseline", strong, 1.0),
        ):
            runs = [one.runs[budget, seed] for seed in one.seeds] if budget else []
            values = [run.get(name) for run in runs]
            known = bool(values) and None not in values
            found[f"{name}{label}"] = float(np.mean(values)) if known else None
    found["quality_at_units"] = min(reached) if reached else None
    return found


def control(line: Line) -> dict[str, Any]:
    """Share of the FLOPs that go into deciding, and those before the first step."""
    run = next(iter(line.runs.values()))
    flops = run.get("flops")
    if not isinstance(flops, Mapping):
        return {"control_fraction": None, "statistics_flops": line.start_flops}
    spent = sum(flops.get(name, 0) for name in CONTROL)
    return {
        "control_fraction": spent / training_flops(run),
        "statistics_flops": flops.get("statistics", 0),
    }
