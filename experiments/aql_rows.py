"""From finished runs to the rows of the tables of AQL v2."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.aql_plan import (
    AqlPlan,
    Arm,
    clean_arms,
    main_arms,
    part_arms,
    table_arms,
)
from experiments.foundation import training_flops
from experiments.runner import Results
from uets_jax.measure.difference import difference
from uets_jax.measure.target import Curve, Target, brackets, budget_at, ratio

CURRENCIES = ("tokens", "flops")


@dataclasses.dataclass(frozen=True)
class Runs:
    """The final runs of an arm: records by (budget in units, seed).

    statistics_flops: of cleaning, and of a reference's training, once per run.
    token_flops: of a reference's forward pass, per offered token.
    diverged: seeds of which a run did, which are in no figure.
    """

    arm: Arm
    rate: float
    records: Mapping[tuple[float, int], Mapping[str, Any]]
    statistics_flops: float = 0.0
    token_flops: float = 0.0
    diverged: tuple[int, ...] = ()

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

    def spent(self, currency: str, budget: float) -> float:
        """Tokens trained on, tokens offered, or all FLOPs, of a run: means of seeds."""
        records = [self.records[budget, s] for s in self.seeds]
        tokens = float(np.mean([r["tokens"] for r in records]))
        offered = tokens * offers(records[0])
        if currency != "flops":
            return tokens if currency == "tokens" else offered
        extra = self.statistics_flops + self.token_flops * offered
        return float(np.mean([training_flops(r) for r in records])) + extra

    def curve(self, currency: str) -> Curve:
        """Bits per byte against what was spent."""
        spent = np.array([self.spent(currency, b) for b in self.budgets])
        losses = np.stack([self.losses(b) for b in self.budgets], axis=1)
        return Curve(spent, losses, self.seeds)

    def only(self, seeds: Sequence[int]) -> "Runs":
        """The runs of these seeds alone."""
        kept = {key: r for key, r in self.records.items() if key[1] in seeds}
        return dataclasses.replace(self, records=kept)

    def target(self, budget: float) -> Target:
        """What the arm reaches at a budget."""
        return Target(self.losses(budget), self.seeds)


def offers(record: Mapping[str, Any]) -> int:
    """Windows offered for each one that was trained on."""
    select = record["config"]["select"]
    return 1 if select["method"] == "none" else select["candidates"]


def runs_of(
    plan: AqlPlan,
    found: Sequence[Arm],
    results: Results,
    costs: Mapping[str, float],
    reference: Mapping[str, float] | None = None,
) -> list[Runs]:
    """The arms whose final runs are all there, without the seeds that diverged.

    Args:
      costs: FLOPs of making a text, by its name.
      reference: what the reference of the RHO arm cost.
    """
    kept = []
    for arm in found:
        rate = plan.rate(arm, results, [])
        jobs = [] if rate is None else [*plan.finals(arm, rate)]
        if rate is None or any(job.name not in results for job in jobs):
            continue
        labels = [dict(job.labels) for job in jobs]
        keys = [(label["budget_units"], label["seed"]) for label in labels]
        records = {k: results[j.name] for k, j in zip(keys, jobs, strict=True)}
        lost = {seed for (_, seed), r in records.items() if r["bits_per_byte"] is None}
        records = {key: r for key, r in records.items() if key[1] not in lost}
        once, token = costs.get(arm.text, 0.0), 0.0
        if reference and arm.name == "rho":
            once += reference["training_flops"] + costs.get("b3.target.0.15", 0.0)
            token = reference["flops_per_token"]
        kept.append(Runs(arm, rate, records, once, token, tuple(sorted(lost))))
    return kept


def mixture_rows(found: Sequence[Runs]) -> list[dict[str, Any]]:
    """`aql.mixture`: every arm against uniform at its decayed loss at U."""
    here = [r for r in found if r.arm in main_arms()]
    base = next((r for r in here if r.arm.name == "uniform"), None)
    if base is None or not base.seeds:
        return []
    rows = [_against(base, r) if r.seeds else _start(r) for r in here]
    ratios = {row["arm"]: row.get("tokens_ratio_uniform") for row in rows}
    best = ratios.get("oracle")
    for row in rows:
        mine, row["oracle_share"] = row.get("tokens_ratio_uniform"), None
        if mine is not None and best is not None and best > 1:
            row["oracle_share"] = (mine - 1) / (best - 1)
    return rows


def _against(base: Runs, runs: Runs) -> dict[str, Any]:
    target = base.target(1.0)
    goal = float(target.losses.mean())
    row = _start(runs) | {"target_bits_per_byte": goal}
    same = sorted({*base.seeds} & {*runs.seeds})  # t is of pairs
    for currency in CURRENCIES:
        curve, reference = runs.curve(currency), base.curve(currency)
        row[f"{currency}_to_target"] = budget_at(curve, goal)
        key = f"{currency}_ratio_uniform"
        found = {"ci": ratio(reference, curve, target)}
        row[key] = found["ci"].value
        if same:
            mine, theirs = runs.only(same), base.only(same)
            pair = theirs.curve(currency), mine.curve(currency), theirs.target(1.0)
            found["t"] = ratio(*pair, method="t")
        for name, one in found.items():
            high = one.high if math.isfinite(one.high) else None
            row |= {f"{key}_{name}_low": one.low, f"{key}_{name}_high": high}
    row["bracketed_within_2x"] = brackets(runs.curve("flops"), goal)
    for budget in (0.125, 0.25, 0.5, 1.0):
        there = budget in runs.budgets
        bits = float(runs.losses(budget).mean()) if there else None
        row[f"bits_per_byte_u{budget:g}"] = bits
    return row


def _start(runs: Runs) -> dict[str, Any]:
    arm = runs.arm
    return {
        "arm": arm.name,
        "mode": arm.mode or None,
        "track": arm.track,
        "recipe": arm.recipe,
        "seeds": len(runs.seeds),
        "diverged_seeds": len(runs.diverged),
        "learning_rate": runs.rate,
        "text": arm.text,
    }


def paired_rows(
    found: Sequence[Runs], arms: Sequence[Arm], base: str, budget: float
) -> list[dict[str, Any]]:
    """Arms at one budget, each less the arm named `base` on the same seeds."""
    mine = [r for r in found if r.arm in arms]
    here = [r for r in mine if budget in r.budgets]
    rows = [_start(r) for r in mine if not r.seeds]
    for runs in here:
        same = [
            r for r in here if r.arm.name == base and r.arm.mode in ("", runs.arm.mode)
        ] or [r for r in here if r.arm.name == base]
        row = _start(runs) | {
            "budget_units": budget,
            "bits_per_byte": float(runs.losses(budget).mean()),
            "tokens": runs.spent("tokens", budget),
            "offered_tokens": runs.spent("offered", budget),
            "total_flops": runs.spent("flops", budget),
        }
        if same and same[0] is not runs:
            row |= _apart(runs, same[0], budget)
        rows.append(row)
    return rows


def _apart(runs: Runs, base: Runs, budget: float) -> dict[str, Any]:
    """Mean difference over the seeds that both have, with its t-interval."""
    seeds = sorted(set(runs.seeds) & set(base.seeds))
    if len(seeds) < 2:
        return {}
    bits = lambda r: [r.records[budget, s]["bits_per_byte"] for s in seeds]
    mine, theirs = (np.array(bits(r), float) for r in (runs, base))
    apart = difference(mine, theirs)
    return {
        f"difference_to_{base.arm.name}": apart.mean,
        "difference_low": apart.low,
        "difference_high": apart.high,
    }


def tables(found: Sequence[Runs]) -> dict[str, list[dict[str, Any]]]:
    """Rows of all records, by name, as far as the runs are there."""
    main, parts = main_arms(), part_arms()
    full = [a for a in main if a.name == "aql_v2" and a.mode == "target"]
    return {
        "aql.mixture": mixture_rows(found),
        "aql.parts": paired_rows(found, [*full, *parts], "aql_v2", 0.25),
        "aql.clean": paired_rows(found, clean_arms(), "uniform", 0.25),
        "aql.tables": paired_rows(found, table_arms(), "b3", 1.0),
    }
