"""From finished runs to the tables of the learned optimizer.

Pure. Steps are those of decayed runs; seconds are steps by the step's own time on a
quiet machine (see `step_times`), without compilation and evaluation.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.optimizer_grids import RULES
from experiments.optimizer_plan import runs_of
from experiments.records import settings_hash
from uets_jax.measure.difference import break_even, difference
from uets_jax.measure.target import Curve, Interval, Target, budget_at, ratio

Record = Mapping[str, Any]
Row = dict[str, Any]
# seconds of a step by (task, rule), timed in so many rounds of all rules
Times = Mapping[tuple[str, str], Sequence[float]]

NOTES = {
    "compare": (
        "Language models that meta-training never saw; batches of 4,096 tokens, 16 "
        "tuning trials per rule and task on valid-A, read on valid-B. Target: mean "
        "bits per byte of AdamW's decayed runs at `target_steps`. steps_ratio_adamw: "
        "those steps over the steps at which the rule's decayed runs reach it (mean "
        "loss interpolated over log steps); above 1 is better than AdamW. "
        "steps_ratio_muon: likewise, to what Muon reaches at those steps. _ci: "
        "bootstrap over seeds, the target's included; _t: t-interval over common "
        "seeds. seconds: steps by the step's time on a quiet machine, all rules timed "
        "in turn and so three times; intervals of seconds take the least and the "
        "largest ratio of these, too. "
        "bits_per_byte_equal_steps: at AdamW's steps; difference_muon: to Muon there, "
        "paired over seeds, with a t-interval. diverged_runs: their seeds are in no "
        "ratio. edges: settings whose best value is the last of its grid. untried: "
        "neighbours of the best settings that the trials did not reach, on a search "
        "that was stopped; empty: it has come to its end. "
        "break_even_runs: core-seconds of meta-training over those that a run saves "
        "against Muon."
    ),
    "trials": (
        "Every tuning trial of optimizer.compare: one seed, read on valid-A. commit: "
        "at which it was run."
    ),
    "runs": (
        "Every decayed run behind optimizer.compare; bits per byte on valid-B. commit: "
        "at which it was run."
    ),
    "robustness": (
        "Settings tuned for the task `narrow`, one thing changed, nothing tuned again; "
        "the same number of steps but for `horizon`. ratio_adamw, ratio_muon: mean "
        "bits per byte over that rule's under the same change, below 1 is better. "
        "diverged: share of the runs that end with a loss that is not finite or above "
        "that of equal odds for all tokens."
    ),
    "untuned": (
        "No tuning: `OptimConfig`'s defaults (rate 0.02, which was chosen for Muon on "
        "models of this size) for learned, muon and AdamW, and two usual ones for "
        "AdamW, warm-up 5 %, WSD; or a rule with what was tuned on the task `narrow`. "
        "over_own_tuned: mean bits per byte over that of the "
        "same rule with tuned settings, same seeds; 1.03 is 3 % worse. "
        "over_tuned_adamw: over AdamW's tuned."
    ),
}
DRAWS = 4000


def bits(record: Record) -> float:
    """Bits per byte; infinite where the run diverged."""
    found = record["bits_per_byte"]
    return math.inf if found is None else float(found)


def compare_rows(
    records: Sequence[Record],
    times: Times,
    searched: Mapping[tuple[str, str], Row],
    meta_core_seconds: float | None = None,
) -> list[Row]:
    """A row for each task and rule whose final runs are there."""
    finals = runs_of(records, stage="final")
    rows = []
    for task in _in_order(finals, "task"):
        mine = runs_of(finals, task=task)
        base = runs_of(mine, arm="adamw")
        if not base:
            continue
        goals = {
            name: _target(runs)
            for name in ("adamw", "muon")
            if (runs := runs_of(mine, arm=name, share=1.0))
        }
        steps = float(base[0]["steps"])
        for arm in sorted(_in_order(mine, "arm"), key=[*RULES].index):
            curve = curve_of(runs_of(mine, arm=arm))
            row = {
                "task": task,
                "arm": arm,
                **_model(base[0]),
                "target_bits_per_byte": float(goals["adamw"].losses.mean()),
                "target_steps": int(steps),
                **_settings(runs_of(mine, arm=arm)[0]),
                **dict.fromkeys(("edges", "trials", "untried")),
                **searched.get((task, arm), {}),
                "diverged_runs": sum(r["diverged"] for r in runs_of(mine, arm=arm)),
            }
            row |= _against(arm, curve, goals, steps, task, times)
            row |= _equal_steps(mine, arm)
            row["break_even_runs"] = _repaid(row, meta_core_seconds)
            rows.append(row)
    return rows


def curve_of(runs: Sequence[Record]) -> Curve | None:
    """Bits per byte by steps, at budgets that all seeds ran; None with less than two.

    Budgets that seed 1 alone ran, to find where the target lies, are left out; so are
    seeds with a run that diverged.
    """
    ran = [
        {r["share"] for r in runs if r["seed"] == s} for s in {r["seed"] for r in runs}
    ]
    shares = sorted(set.intersection(*ran)) if ran else []
    if len(shares) < 2:
        return None
    found = {(r["share"], r["seed"]): r for r in runs if math.isfinite(bits(r))}
    seeds = tuple(
        sorted(
            s for s in {r["seed"] for r in runs} if all((b, s) in found for b in shares)
        )
    )
    if not seeds:
        return None
    steps = np.array([found[b, seeds[0]]["steps"] for b in shares], float)
    losses = np.array([[bits(found[b, s]) for b in shares] for s in seeds])
    return Curve(steps, losses, seeds)


def _target(base: Sequence[Record]) -> Target:
    sound = [r for r in base if math.isfinite(bits(r))]
    return Target(np.array([bits(r) for r in sound]), tuple(r["seed"] for r in sound))


def _whole(target: Target, steps: float) -> Curve:
    """AdamW as a curve through its own budget: half of that is far from the target."""
    losses = np.stack([target.losses + 1, target.losses], 1)
    return Curve(np.array([steps / 2, steps]), losses, target.seeds)


def _against(
    arm: str,
    curve: Curve | None,
    goals: Mapping[str, Target],
    steps: float,
    task: str,
    times: Times,
) -> Row:
    """Steps and seconds to what AdamW and Muon reach at the task's steps."""
    seeds = goals["adamw"].seeds if arm == "adamw" else curve.seeds if curve else ()
    row: Row = {"seeds": len(seeds)}
    timed = times.get((task, arm), ())
    row["step_seconds"] = float(np.median(timed)) if timed else None
    for name, goal in goals.items():
        own = _whole(goal, steps)
        mine = own if arm == name else curve
        needed = None if mine is None else budget_at(mine, float(goal.losses.mean()))
        row[f"steps_to_{name}"] = needed
        for currency in ("steps", "seconds"):
            per = (1.0, 1.0, 1.0)
            if currency == "seconds":
                per = _per(times.get((task, name), ()), timed)
            key = f"{currency}_ratio_{name}"
            row |= _interval(key, own, mine, goal, per, arm == name)
    return row


def _per(base: Sequence[float], mine: Sequence[float]) -> tuple[float, float, float]:
    """Ratio of two steps' seconds: median, least and largest over the rounds."""
    if not base or len(base) != len(mine):
        return math.nan, math.nan, math.nan
    each = np.asarray(base) / np.asarray(mine)
    return float(np.median(each)), float(each.min()), float(each.max())


def _interval(
    key: str,
    base: Curve | None,
    mine: Curve | None,
    target: Target,
    per: tuple[float, float, float],
    same: bool,
) -> Row:
    """A ratio with both of its intervals, times `per` (value, least, largest).

    None where there is none.
    """
    names = ("", "_ci_low", "_ci_high", "_t_low", "_t_high")
    if same:
        return {key + name: 1.0 for name in names}
    if base is None or mine is None or not np.isfinite(per).all():
        return {key + name: None for name in names}
    found = ratio(base, mine, target, DRAWS)
    paired = _paired(base, mine, target)
    ends = (found.value, found.low, found.high, paired.low, paired.high)
    times = (per[0], per[1], per[2], per[1], per[2])
    known = lambda x: x is not None and 0 < x < math.inf
    plain = [x * p if known(x) else None for x, p in zip(ends, times, strict=True)]
    return dict(zip((key + name for name in names), plain, strict=True))


def _paired(base: Curve, mine: Curve, target: Target) -> Interval:
    """The t-interval over the seeds that all three have."""
    seeds = sorted({*base.seeds} & {*mine.seeds} & {*target.seeds})
    if len(seeds) < 2:
        return Interval(None, 0.0, math.inf, 0.0, 0)
    cut = lambda c: Curve(
        c.budgets, c.losses[[c.seeds.index(s) for s in seeds]], tuple(seeds)
    )
    few = target.losses[[target.seeds.index(s) for s in seeds]]
    return ratio(cut(base), cut(mine), Target(few, tuple(seeds)), method="t")


def _equal_steps(mine: Sequence[Record], arm: str) -> Row:
    """At AdamW's steps: mean bits per byte, and the difference to Muon."""
    at = {
        name: {r["seed"]: bits(r) for r in runs_of(mine, arm=name, share=1.0)}
        for name in (arm, "muon")
    }
    row: Row = {"bits_per_byte_equal_steps": _mean([*at[arm].values()])}
    both = sorted({*at[arm]} & {*at["muon"]})
    names = ("difference_muon", "difference_muon_low", "difference_muon_high")
    row |= dict.fromkeys(names)
    pairs = [(at[arm][s], at["muon"][s]) for s in both]
    if arm != "muon" and len(both) > 1 and np.isfinite(pairs).all():
        found = difference(*map(list, zip(*pairs, strict=True)))
        row |= dict(zip(names, (found.mean, found.low, found.high), strict=True))
    return row


def _repaid(row: Row, core_seconds: float | None) -> float | None:
    """Runs after which meta-training has paid, against Muon; None: never, not known."""
    ratio_muon = row.get("seconds_ratio_muon")
    needed, each = row.get("steps_to_muon"), row["step_seconds"]
    if row["arm"] != "learned" or None in (core_seconds, ratio_muon, needed, each):
        return None
    cores = 2
    saved = (ratio_muon - 1) * needed * each * cores
    found = break_even(float(core_seconds or 0.0), saved)
    return found if math.isfinite(found) else None


def trial_rows(records: Sequence[Record]) -> list[Row]:
    """Every trial."""
    return [
        {
            "task": r["task"],
            "arm": r["arm"],
            **_settings(r),
            "bits_per_byte": r["bits_per_byte"],
            "diverged": r["diverged"],
            **_origin(r),
        }
        for r in runs_of(records, stage="trial")
    ]


def run_rows(records: Sequence[Record]) -> list[Row]:
    """Every final run."""
    keys = ("share", "seed", "steps", "params", "bits_per_byte")
    rows = []
    for r in runs_of(records, stage="final"):
        spent = r.get("flops") or {}
        total = sum(v for k, v in spent.items() if k != "evaluation")
        row = {"task": r["task"], "arm": r["arm"], **_settings(r)}
        row |= {key: r.get(key) for key in keys}
        row |= {"total_flops": float(total), "diverged": r["diverged"]}
        rows.append(row | _origin(r))
    return rows


def _origin(record: Record) -> Row:
    """What was run, and by which commit."""
    commit, config = record.get("commit"), record.get("config")
    return {"settings_hash": config and settings_hash(config), "commit": commit}


def robustness_rows(records: Sequence[Record]) -> list[Row]:
    """A row for each rule and condition."""
    mine, rows = runs_of(records, stage="robust"), []
    for arm in _in_order(mine, "arm"):
        for what, factor in dict.fromkeys((r["condition"], r["factor"]) for r in mine):
            at = {
                name: runs_of(mine, arm=name, condition=what, factor=factor)
                for name in (arm, "adamw", "muon")
            }
            if not at[arm]:
                continue
            mean = {name: _mean([*map(bits, runs)]) for name, runs in at.items()}
            row = {
                "arm": arm,
                "condition": what,
                "factor": factor,
                "seeds": len(at[arm]),
                "diverged": float(np.mean([lost(r) for r in at[arm]])),
                "bits_per_byte": mean[arm],
            }
            for name in ("adamw", "muon"):
                known = mean[arm] is not None and mean[name] is not None
                row[f"ratio_{name}"] = mean[arm] / mean[name] if known else None
            rows.append(row)
    return rows


def lost(record: Record) -> bool:
    """Whether a run ended with no finite loss, or one above that of equal odds."""
    loss = record.get("final_train_loss")
    vocab = record["config"]["model"]["vocab"]
    return bool(record["diverged"]) or loss is None or loss > math.log(vocab)


def untuned_rows(records: Sequence[Record]) -> list[Row]:
    """A row for each task and default."""
    mine, finals = runs_of(records, stage="untuned"), runs_of(records, stage="final")
    rows = []
    for task in _in_order(mine, "task"):
        for arm in _in_order(mine, "arm"):
            runs = runs_of(mine, task=task, arm=arm)
            if not runs:
                continue
            row = {
                "task": task,
                "arm": arm,
                "seeds": len(runs),
                "bits_per_byte": _mean([*map(bits, runs)]),
            }
            for key, rule in (
                ("over_own_tuned", runs[0]["rule"]),
                ("over_tuned_adamw", "adamw"),
            ):
                tuned = runs_of(finals, task=task, arm=rule, share=1.0)
                row[key] = _over(runs, tuned)
            rows.append(row)
    return rows


def _over(runs: Sequence[Record], tuned: Sequence[Record]) -> float | None:
    """Mean over mean, of common seeds."""
    ours = {r["seed"]: bits(r) for r in runs}
    theirs = {r["seed"]: bits(r) for r in tuned}
    both = sorted({*ours} & {*theirs})
    means = [_mean([side[s] for s in both]) for side in (ours, theirs)]
    return None if None in means else means[0] / means[1]  # pyright: ignore


def _mean(values: Sequence[float]) -> float | None:
    """None of nothing, and where a value is not finite."""
    found = float(np.mean(values)) if len(values) else math.nan
    return found if math.isfinite(found) else None


def _in_order(records: Sequence[Record], key: str) -> list[Any]:
    return list(dict.fromkeys(r[key] for r in records))


def _model(record: Record) -> Row:
    config = record["config"]
    return {
        "text": str(config["data"]["source"]).rpartition("/")[2].partition(".")[0],
        "width": config["model"]["width"],
        "depth": config["model"]["depth"],
        "params": record.get("params"),
    }


def _settings(record: Record) -> Row:
    return {"settings": settings_text(record["settings"])}


def settings_text(settings: Mapping[str, Any]) -> str:
    """Settings of a rule, as rows have them."""
    return " ".join(f"{name}={value:g}" for name, value in settings.items())
