"""Runs what `optimizer_plan` wants, and writes the tables of `optimizer_rows`."""

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import optimizer_costs, optimizer_plan, optimizer_rows, search, tracks
from experiments.optimizer_grids import RULES
from experiments.optimizer_known import recall
from experiments.optimizer_plan import BATCH, OptimizerPlan, Options, runs_of
from experiments.records import check_kept, read_record, write_record
from experiments.runner import Results, pin, run_queue, serve
from experiments.step_times import step_time
from uets_jax.errors import UserError
from uets_jax.models.presets import from_dict
from uets_jax.optim.stored import SHIPPED, load_theta

COSTS = {  # tables of a step's costs: their rows, their note
    "overhead": (optimizer_costs.overhead_rows, optimizer_costs.NOTE),
    "frozen": (optimizer_costs.frozen_rows, optimizer_costs.FROZEN_NOTE),
}
ROUNDS = 3  # of timing
TABLES = (*optimizer_plan.TABLES, *COSTS)
PREPARE = {"clean": tracks.clean, "encyclopedic": tracks.encyclopedic}


def run(given: argparse.Namespace, words: Sequence[str], said: str) -> None:
    """Data, runs, tables.

    Args:
      given: of the command line.
      words: of it, for workers.
      said: the command, for records.
    """
    wanted = tuple(given.only or TABLES)
    options = Options(
        given.stores,
        tuple(t for t in wanted if t in optimizer_plan.TABLES),
        tuple(given.task or Options.tasks),
        tuple(given.rule or RULES),
        given.trials,
        given.scale,
        hashlib.sha256(SHIPPED.read_bytes()).hexdigest()[:8],
    )
    plan, runs = OptimizerPlan(options), given.runs / "compare"
    if given.worker >= 0:
        pin(given.worker)
        run_queue(plan, runs)
        return
    if "compare" in plan.options.tables:
        pairs = {(task.name, r) for task in plan.tasks for r in plan.rules(task)}
        keys, how = ("task", "arm"), "with --known"
        check_kept("optimizer.compare", keys, pairs, given.out, how)
    if given.known:
        print(f"{recall(plan, given.out, runs)} runs are on record")
    for text in {task.text for task in plan.tasks} | {"clean"}:
        PREPARE[text](given.data_dir, given.stores)
    if given.workers > 1 and options.tables:
        serve(given.workers, "experiments.meta_optimizer", words)
    results = run_queue(plan, runs)
    card = load_theta(None).card
    config = {
        "batch": BATCH,
        "trials": given.trials,
        "scale": given.scale,
        "meta_trained": card["meta_trained"],
        "meta_commit": card["commit"],
        "weights_sha256": options.digest,
    }
    found = tables(plan, results, _meta_core_seconds(given.out))
    notes = {**optimizer_rows.NOTES}
    for name, (rows_of, note) in COSTS.items():
        notes[name] = note
        if name in wanted:
            found[name] = rows_of(given.stores)
    for name, rows in found.items():
        if rows:
            table = f"optimizer.{name}"
            print(write_record(table, rows, said, config, notes[name], given.out))


def tables(
    plan: OptimizerPlan, results: Results, meta_core_seconds: float | None
) -> dict[str, list[dict[str, Any]]]:
    """The rows of every table that the plan was asked for."""
    records, asked = list(results.values()), plan.options.tables
    found: dict[str, list[dict[str, Any]]] = {}
    if "compare" in asked:
        times = step_times(records)
        found["compare"] = optimizer_rows.compare_rows(
            records, times, searches(plan, results), meta_core_seconds
        )
        found["trials"] = optimizer_rows.trial_rows(records)
        found["runs"] = optimizer_rows.run_rows(records)
    if "robustness" in asked:
        found["robustness"] = optimizer_rows.robustness_rows(records)
    if "untuned" in asked:
        found["untuned"] = optimizer_rows.untuned_rows(records)
    return found


def step_times(
    records: Sequence[Mapping[str, Any]],
) -> dict[tuple[str, str], list[float]]:
    """Seconds of a step by (task, rule), `ROUNDS` times; tasks of one shape share it.

    All are timed in turn, so that a slow minute of the machine meets all of them.
    """
    shapes, of = {}, {}
    for record in optimizer_plan.runs_of(records, stage="final"):
        shape = repr((record["config"]["model"], record["rule"]))
        shapes.setdefault(shape, from_dict(record["config"]))
        of[record["task"], record["arm"]] = shape
    found = {shape: [] for shape in shapes}
    for shape, config in [*shapes.items()] * ROUNDS:
        found[shape].append(step_time(config).step_seconds)
    return {pair: found[shape] for pair, shape in of.items()}


def searches(
    plan: OptimizerPlan, results: Results
) -> dict[tuple[str, str], dict[str, Any]]:
    """How the search for settings ended, by (task, rule).

    edges: settings whose best value is the last of its grid. trials: that were made.
    untried: neighbours of the best point that were not tried; empty: the search has
    come to its end.
    """
    found = {}
    for task in plan.tasks:
        for rule in plan.rules(task):
            best = plan.tuned(task, rule, results, [])
            if best is None:
                continue
            axes, mine = RULES[rule], []
            point = tuple(axis.values.index(best[axis.name]) for axis in axes)
            for record in runs_of([*results.values()], stage="trial", task=task.name):
                if record["rule"] == rule:
                    own = record["settings"]
                    mine.append(tuple(a.values.index(own[a.name]) for a in axes))
            near = [
                axes[i].name + sign
                for i in range(len(axes))
                for sign, step in (("+", 1), ("-", -1))
                if search.moved(axes, point, i, step) not in (None, *mine)
            ]
            found[task.name, rule] = {
                "edges": " ".join(search.edges(axes, point)),
                "trials": len(mine),
                "untried": " ".join(near),
            }
    return found


def _meta_core_seconds(out: Path) -> float | None:
    """Of the gate that is shipped; None where there is no record."""
    try:
        rows = read_record("optimizer.meta_cost", out)["rows"]
    except UserError:
        return None
    return float(sum(r["core_seconds"] for r in rows if r["arm"] == "gate"))
