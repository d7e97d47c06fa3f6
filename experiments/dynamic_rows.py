"""From finished runs to the tables of growth: FLOPs to a static model's loss, and more.

Pure. A run's FLOPs are all that it was charged but its evaluations; its seconds are its
steps at each shape, by that shape's step alone on the machine.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from experiments.dynamic_times import Times, key, seconds, stages
from uets_jax.measure.difference import difference
from uets_jax.measure.target import Curve, Interval, ratio, target_at

Record = Mapping[str, Any]
Row = dict[str, Any]

NOTES = {
    "target": (
        "WikiText-2, width 64, `modern` with Muon, final size 4 layers; tokens per "
        "parameter of the blocks of the final model. Target: mean bits per byte "
        "(valid-B) of the tuned static model with 4 layers, fully decayed. "
        "flops_fraction_static: FLOPs at which the arm's decayed runs reach it, over "
        "the static run's; lower is better. _static_best: over the best of one, two "
        "and four layers, which did not grow. _ci: bootstrap over seeds, the target's "
        "included; _t: t-interval over common seeds; missed: share of the draws in "
        "which the arm's budgets do not bracket the target. seconds: the steps at "
        "each shape, by that shape's step alone on the machine; no compilation, no "
        "moves."
    ),
    "target_trials": (
        "What was tried for growth.target, one seed each, read on valid-A. "
        "flops_share: of the static run's FLOPs; growth was tuned at 65 % of them."
    ),
    "target_runs": (
        "Every decayed run behind growth.target: its FLOPs (all but evaluations) and "
        "bits per byte on valid-B. share: of the static model's steps."
    ),
    "moments_curve": (
        "Training loss of the steps after growth less that of the same seed with "
        "`carry`, mean over seeds and over five steps, which end at `step`."
    ),
    "events": (
        "One run of 300 steps, 4 to 8 to 12 layers by identity blocks. loss_before "
        "and loss_after: the same batch right before and right after. "
        "step_seconds: of the phase that follows, in the run. compile_seconds: train "
        "steps of all stages, before the first step; growth_seconds: moves, losses "
        "before and after, and their compilation. without_compilation: steps and data."
    ),
    "moments": (
        "One to four layers at half of the steps, no warm-up of fresh entries. "
        "loss_after_N: mean training loss of the first N steps after growth, less "
        "that of the same seed with `carry`; positive is worse. difference: of the "
        "final bits per byte, with a t-interval over paired seeds."
    ),
    "prune": (
        "Four layers, pruned at 70 % of the steps, the rest is recovery. difference: "
        "of bits per byte to the model that was not pruned (with four heads to its "
        "own), t-interval over paired seeds. tokens_per_second: training after "
        "pruning, its step alone on the machine. jump: loss right after less right "
        "before."
    ),
    "moe": (
        "One layer. dense: one MLP; experts: four, one active, capacity 1.25. Target: "
        "the dense model's bits per byte at 3 tokens per parameter; tokens and FLOPs "
        "of the dense model over the arm's, higher is better. router_load_max: "
        "largest share of a layer's tokens that one expert got, at the end; 0.25 is "
        "even."
    ),
}
DRAWS = 2000


def tables(
    records: Sequence[Record], wanted: Sequence[str], times: Times
) -> dict[str, list[Row]]:
    """The rows of every table whose runs are there.

    Args:
      times: seconds of a step by shape, see `dynamic_times`.
    """
    makers: dict[str, Callable[[list[Record]], list[Row]]] = {
        "target": lambda rs: target_rows(rs, times),
        "events": event_rows,
        "moments": moment_rows,
        "prune": lambda rs: prune_rows(rs, times),
        "moe": moe_rows,
    }
    found = {}
    for name in wanted:
        stage = "final" if name == "target" else name
        mine = [r for r in records if r["table"] == stage and not r["diverged"]]
        rows = makers[name](mine) if mine else []
        if rows:
            found[name] = rows
        tried = [r for r in records if r["table"] == "trial"]
        if name == "target" and tried:
            found["target_trials"] = trial_rows(tried)
        if name == "target" and rows:
            found["target_runs"] = run_rows(mine)
        if name == "moments" and rows:
            found["moments_curve"] = moment_curves(mine)
    return found


def flops(record: Record) -> float:
    """All that a run was charged but its evaluations."""
    return float(sum(v for k, v in record["flops"].items() if k != "evaluation"))


def grouped(records: Sequence[Record], *keys: str) -> dict[Any, list[Record]]:
    """Records by the values of some keys, in the order in which they first occur."""
    found: dict[Any, list[Record]] = {}
    for record in records:
        found.setdefault(tuple(record[key] for key in keys), []).append(record)
    return found


def by_seed(records: Sequence[Record]) -> dict[int, list[Record]]:
    """The records of each seed, from small to large share; only complete seeds."""
    shares = {r["share"] for r in records}
    seeds = {k[0]: rows for k, rows in grouped(records, "seed").items()}
    whole = {s: rows for s, rows in seeds.items() if len(rows) == len(shares)}
    return {s: sorted(rows, key=lambda r: r["share"]) for s, rows in whole.items()}


# target


def target_rows(records: list[Record], times: Times) -> list[Row]:
    """An arm a row, for each number of tokens per parameter."""
    rows: list[Row] = []
    for (per_param,), runs in grouped(records, "tokens_per_param").items():
        arms = {k[0]: by_seed(rows) for k, rows in grouped(runs, "arm").items()}
        static = arms.get("static")
        if static:
            made = [target_row(*pair, static, times) for pair in arms.items()]
            best = _best_static(made)
            for row in made:
                mine = row["flops_to_target"]
                over = mine / best if best and mine else None
                row["flops_fraction_static_best"] = over
                row["tokens_per_param"] = per_param
            rows += made
    return _with_default(rows)


def target_row(
    arm: str,
    runs: Mapping[int, list[Record]],
    static: Mapping[int, list[Record]],
    times: Times,
) -> Row:
    """FLOPs and seconds to the static model's loss, loss at equal tokens."""
    first = next(iter(runs.values()))
    row: Row = {
        "arm": arm,
        "tokens_per_param": first[0]["tokens_per_param"],
        "default": False,
        "plan": _plan(first[0]),
        "how": first[0]["how"] if first[0]["plan"] else "",
        "rate": first[0]["rate"],
        "seeds": len(runs),
        "grown_at": _grown_at(runs),
    }
    taken = lambda record: seconds(record, times)
    for name, currency in (("flops", flops), ("seconds", taken)):
        found = fraction(runs, static, currency)
        key_of = f"{name}_fraction_static"
        row |= {key_of: found.value}
        row |= {f"{key_of}_ci_low": found.low, f"{key_of}_ci_high": found.high}
        row |= {f"{key_of}_t_low": found.t_low, f"{key_of}_t_high": found.t_high}
        if name == "flops":
            spent = _mean(static, flops)
            row["missed"] = found.missed
            row["flops_to_target"] = found.value and found.value * spent
    row["bits_per_byte_least_budget"] = _mean(runs, _bits, 0)
    row["flops_least_budget"] = _mean(runs, flops, 0)
    row |= _equal_tokens(runs, static)
    return row


def _equal_tokens(
    runs: Mapping[int, list[Record]], static: Mapping[int, list[Record]]
) -> Row:
    """Where an arm has a run of as many steps: bits per byte, over the static run's."""
    at = {
        s: next((r for r in rows if r["share"] == 1.0), None)
        for s, rows in runs.items()
    }
    both = [s for s in at if at[s] is not None and s in static]
    if not both:
        return {"bits_per_byte_equal_tokens": None, "loss_over_static": None}
    ours = [at[s]["bits_per_byte"] for s in both]  # pyright: ignore
    theirs = [static[s][-1]["bits_per_byte"] for s in both]
    share = np.mean([flops(at[s]) / flops(static[s][-1]) for s in both])  # pyright: ignore
    return {
        "bits_per_byte_equal_tokens": float(np.mean(ours)),
        "loss_over_static": float(np.mean(ours) / np.mean(theirs)),
        "flops_share_equal_tokens": float(share),
    }


class Spread(NamedTuple):
    """A fraction with its bounds; None where the runs set none.

    low, high: 95 % bootstrap. t_low, t_high: 95 % t-interval over common seeds.
    missed: share of the draws in which the budgets do not bracket the target.
    """

    value: float | None
    low: float | None
    high: float | None
    t_low: float | None
    t_high: float | None
    missed: float


def fraction(
    runs: Mapping[int, list[Record]],
    static: Mapping[int, list[Record]],
    currency: Callable[[Record], float],
) -> Spread:
    """What an arm spends to reach the static runs' mean loss, over what these spent."""
    if runs is static:
        return Spread(1.0, 1.0, 1.0, 1.0, 1.0, 0.0)
    if len(next(iter(runs.values()))) < 2:
        return Spread(None, None, None, None, None, 1.0)
    found = _ratio(runs, static, currency, "bootstrap")
    both = sorted({*runs} & {*static})
    paired = _ratio(*({s: r[s] for s in both} for r in (runs, static)), currency, "t")
    ends = (found.high, found.low, paired.high, paired.low)
    bounds = [1 / x if 0 < x < math.inf else None for x in ends]
    return Spread(found.value and 1 / found.value, *bounds, found.missed)


def _ratio(
    runs: Mapping[int, list[Record]],
    static: Mapping[int, list[Record]],
    currency: Callable[[Record], float],
    method: Literal["bootstrap", "t"],
) -> Interval:
    seeds = tuple(static)
    bits = np.array([_bits(static[s][-1]) for s in seeds])
    spent = float(np.mean([currency(static[s][-1]) for s in seeds]))
    # its own loss takes the static model its own budget; half of that is far from it
    whole = Curve(np.array([spent / 2, spent]), np.stack([bits + 1, bits], 1), seeds)
    budgets = np.mean([[currency(r) for r in rows] for rows in runs.values()], axis=0)
    losses = np.array([[_bits(r) for r in rows] for rows in runs.values()])
    arm = Curve(budgets, losses, tuple(runs))
    return ratio(whole, arm, target_at(whole, spent), DRAWS, method=method)


def _bits(record: Record) -> float:
    return float(record["bits_per_byte"])


def _mean(
    runs: Mapping[int, list[Record]], of: Callable[[Record], float], place: int = -1
) -> float:
    return float(np.mean([of(rows[place]) for rows in runs.values()]))


def _plan(record: Record) -> str:
    if record["arm"] == "grow_random":
        return "random times"
    if record["arm"] == "grow_trigger":
        return f"{record['plan']} slope {record['slope_threshold']:g}"
    start = record.get("depth", 1)
    told = f"from {start}: " if record["plan"] and start > 1 else ""
    return told + record["plan"]


def _grown_at(runs: Mapping[int, list[Record]]) -> str:
    """Share of the steps at which the runs of most steps grew, by seed."""
    ends = [rows[-1] for rows in runs.values()]
    told = [
        "+".join(f"{e['step'] / r['steps']:.2f}" for e in r["growth"]) or "never"
        for r in ends
        if r["plan"]
    ]
    return " ".join(dict.fromkeys(told))


def _best_static(rows: Sequence[Row]) -> float | None:
    static = [r["flops_to_target"] for r in rows if r["arm"].startswith("static")]
    found = [spent for spent in static if spent is not None]
    return min(found) if len(found) > 1 else None


def _with_default(rows: list[Row]) -> list[Row]:
    """Marks the growth that the recipes use: at a fixed share."""
    for row in rows:
        row["default"] = row["arm"] == "grow_fixed"
    return rows


def trial_rows(records: Sequence[Record]) -> list[Row]:
    """What was tried, one seed, read on valid-A."""
    static = [r for r in records if r["arm"] == "static" and not r["diverged"]]
    whole = {r["tokens_per_param"]: flops(r) for r in static}
    return [
        {
            "arm": r["arm"],
            "tokens_per_param": r["tokens_per_param"],
            "plan": _plan(r),
            "how": r["how"] if r["plan"] else "",
            "rate": r["rate"],
            "seeds": 1,
            "flops_share": flops(r) / whole[r["tokens_per_param"]],
            "bits_per_byte": r["bits_per_byte"],
        }
        for r in records
    ]


def run_rows(records: Sequence[Record]) -> list[Row]:
    """A row per final run."""
    keys = ("arm", "tokens_per_param", "share", "seed", "bits_per_byte", "steps")
    return [{key: r[key] for key in keys} | {"total_flops": flops(r)} for r in records]


# the other tables


def event_rows(records: list[Record]) -> list[Row]:
    """A row per growth, and one for the whole run."""
    rows = []
    for run in records:
        phases = run["phases"]
        for event, phase in zip(run["growth"], phases[1:], strict=False):
            rows.append(
                {
                    "arm": run["arm"],
                    "step": event["step"],
                    "change": ", ".join(
                        f"{o['field']}={o['size']}" for o in event["ops"]
                    ),
                    "exact": event["exact"],
                    "loss_before": event["loss_before"],
                    "loss_after": event["loss_after"],
                    "params": event["params"],
                    "step_flops_before": event["step_flops_before"],
                    "step_flops": event["step_flops"],
                    "step_seconds": phase["seconds_per_step"],
                }
            )
        spent = run["seconds"]
        known = {f"{k}_seconds": v for k, v in spent.items() if k != "prepare"}
        trained = sum(spent.get(k, 0.0) for k in ("train", "data"))
        whole = trained + sum(spent.get(k, 0.0) for k in ("compile", "growth"))
        rows.append(
            {
                "arm": f"{run['arm']}, whole run",
                "step": run["steps"],
                "params": run["params"],
                "bits_per_byte": run["bits_per_byte"],
                "step_seconds": phases[0]["seconds_per_step"],
                "seconds_without_compilation": trained,
                "seconds_with_compilation": whole,
                "compile_seconds": known.get("compile_seconds"),
                "growth_seconds": known.get("growth_seconds"),
            }
        )
    return rows


def moment_rows(records: list[Record]) -> list[Row]:
    """How much a growth hurts, by what becomes of the moments."""
    rows = []
    arms = {
        k[0]: {r["seed"]: r for r in rs} for k, rs in grouped(records, "arm").items()
    }
    for arm, runs in arms.items():
        base = arms.get(f"{arm.split()[0]} carry", {})
        both = [s for s in runs if s in base]
        row: Row = {"arm": arm, "seeds": len(both)}
        for steps in (5, 20, 100):
            after = lambda r, n=steps: _after(r, n)
            gaps = [after(runs[s]) - after(base[s]) for s in both]
            row[f"loss_after_{steps}"] = float(np.mean(gaps))
        worst = [max(_gaps(runs[s], base[s])) for s in both]
        row["worst_step"] = float(np.mean(worst))
        row["bits_per_byte"] = float(np.mean([_bits(runs[s]) for s in both]))
        row |= _difference(runs, base, both)
        rows.append(row)
    return rows


def moment_curves(records: list[Record]) -> list[Row]:
    """The mean gap to `carry` in bins of five steps after growth."""
    by_arm = {
        k[0]: {r["seed"]: r for r in rs} for k, rs in grouped(records, "arm").items()
    }
    rows = []
    for arm, runs in by_arm.items():
        base = by_arm.get(f"{arm.split()[0]} carry", {})
        both = [s for s in runs if s in base]
        if arm.endswith("carry") or not both:
            continue
        gaps = np.mean([_gaps(runs[s], base[s]) for s in both], axis=0)
        for end in range(5, len(gaps) + 1, 5):
            gap = float(np.mean(gaps[end - 5 : end]))
            rows.append({"arm": arm, "step": end, "seeds": len(both), "gap": gap})
    return rows


def _after(run: Record, steps: int) -> float:
    """Mean training loss of the first steps after growth."""
    start = run["growth"][0]["step"]
    return float(np.mean(run["losses"][start : start + steps]))


def _gaps(run: Record, base: Record) -> list[float]:
    start = run["growth"][0]["step"]
    window = slice(start, start + 100)
    pairs = zip(run["losses"][window], base["losses"][window], strict=True)
    return [ours - theirs for ours, theirs in pairs]


def _difference(
    runs: Mapping[int, Record], base: Mapping[int, Record], both: Sequence[int]
) -> Row:
    """Of the final bits per byte."""
    gaps = [_bits(runs[s]) - _bits(base[s]) for s in both]
    mean = float(np.mean(gaps)) if gaps else None
    if len(both) < 2 or not any(gaps):
        return {"difference": mean, "difference_low": None, "difference_high": None}
    found = difference([_bits(runs[s]) for s in both], [_bits(base[s]) for s in both])
    return {
        "difference": found.mean,
        "difference_low": found.low,
        "difference_high": found.high,
    }


def prune_rows(records: list[Record], times: Times) -> list[Row]:
    """Quality against size and speed."""
    arms = {
        k[0]: {r["seed"]: r for r in rs} for k, rs in grouped(records, "arm").items()
    }
    rows = []
    for arm, runs in arms.items():
        like = "static, 4 heads" if "heads" in arm else "static"
        base = arms.get(like, {})
        both = [s for s in runs if s in base]
        one = [runs[s] for s in both] or list(runs.values())
        [*_, (_, last)] = stages(one[0])
        per_step = one[0]["tokens"] / one[0]["steps"]
        row: Row = {
            "arm": arm,
            "seeds": len(one),
            "params": one[0]["final_params"],
            "bits_per_byte": float(np.mean([_bits(r) for r in one])),
            **_difference(runs, base, both),
            "jump": _jump(one),
            "flops_share": float(np.mean([flops(r) for r in one])),
            "tokens_per_second": per_step / times[key(last.model)],
        }
        if base:
            row["flops_share"] /= float(np.mean([flops(base[s]) for s in both]))
        rows.append(row)
    return rows


def _jump(runs: Sequence[Record]) -> float | None:
    """Loss right after the last change less right before."""
    gaps = [
        r["growth"][-1]["loss_after"] - r["growth"][-1]["loss_before"]
        for r in runs
        if r["growth"]
    ]
    return float(np.mean(gaps)) if gaps else None


def moe_rows(records: list[Record]) -> list[Row]:
    """Tokens and FLOPs to the dense model's loss."""
    arms = {k[0]: by_seed(rs) for k, rs in grouped(records, "arm").items()}
    dense = arms.get("dense")
    if not dense:
        return []
    rows = []
    for arm, runs in arms.items():
        row: Row = {"arm": arm, "seeds": len(runs)}
        for name, currency in (
            ("tokens", lambda r: float(r["tokens"])),
            ("flops", flops),
        ):
            found = fraction(runs, dense, currency)
            inverse = lambda x: x and 1 / x
            row[f"{name}_ratio_dense"] = inverse(found.value)
            row[f"{name}_ratio_dense_ci_low"] = inverse(found.high)
            row[f"{name}_ratio_dense_ci_high"] = inverse(found.low)
            row["missed"] = found.missed
        row["bits_per_byte"] = _mean(runs, _bits)
        last = [rows[-1] for rows in runs.values()]
        row["params"] = last[0]["final_params"]
        row["flops_over_dense"] = _mean(runs, flops) / _mean(dense, flops)
        for name in ("router_load_max", "router_dropped"):
            seen = [r[name] for r in last if r.get(name) is not None]
            row[name] = float(np.mean(seen)) if seen else None
        rows.append(row)
    return rows
