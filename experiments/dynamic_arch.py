"""The dynamic transformer: growing, pruning and experts against static models.

    python -m experiments.dynamic_arch --workers 2                every table
    python -m experiments.dynamic_arch --only target --seeds 3    one table

Tables: target, events, moments, prune, moe (runs in a queue, resumable); the learned
policy has a script of its own, `experiments.growth_policy`. The text is WikiText-2, in
the stores of `experiments.baselines`; they are made if they are not there.
"""

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import arms, dynamic_rows, dynamic_times, tracks
from experiments.dynamic_plan import (
    RATES,
    TABLES,
    TOKENS_PER_PARAM,
    DynamicPlan,
    Options,
)
from experiments.records import read_record, write_record
from experiments.runner import pin, run_queue, serve
from experiments.script import check_queue, command, ended, queue_parser
from uets_jax.errors import EXIT_OK, UserError
from uets_jax.report.metrics import read_metrics
from uets_jax.train.loop import Result


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    given = parser().parse_args(words)
    return ended("dynamic_arch", lambda: run(given, words))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = queue_parser("dynamic_arch", "runs/dynamic")
    flag = found.add_argument
    flag("--only", choices=TABLES, action="append", help="one table")
    flag("--stores", type=Path, default=Path("runs/baselines/data"))
    flag("--scale", type=float, default=1.0, help="of all numbers of tokens")
    flag("--per-param", type=int, action="append", help="tokens per parameter")
    return found


def run(given: argparse.Namespace, words: Sequence[str]) -> int:
    """Data, runs, tables."""
    check_queue(given)
    wanted = tuple(given.only or TABLES)
    per_param = tuple(given.per_param or Options.per_param)
    earlier = _earlier(given.out, wanted, per_param)
    options = Options(
        given.stores,
        wanted,
        given.seeds,
        given.scale,
        per_param,
        tuple(earlier.get("target_trials", {}).get("rows", ())),
    )
    plan = DynamicPlan(options, measure_with(given.runs))
    if given.worker >= 0:
        pin(given.worker)
        run_queue(plan, given.runs)
        return EXIT_OK
    tracks.clean(given.data_dir, given.stores)
    if given.workers > 1:
        serve(given.workers, "experiments.dynamic_arch", words)
    results = run_queue(plan, given.runs)
    config = {
        "width": arms.WIDTH,
        "length": arms.LENGTH,
        "rates": list(RATES),
        "scale": given.scale,
        "seeds": given.seeds,
    }
    line, records = command("dynamic_arch", words), list(results.values())
    timed = [r for r in records if r["table"] in ("final", "prune")]
    times = dynamic_times.measured([r for r in timed if not r["diverged"]], given.runs)
    for name, rows in dynamic_rows.tables(records, wanted, times).items():
        note, said = dynamic_rows.NOTES[name], config
        if name in earlier:
            old = earlier[name]
            stay = [r for r in old["rows"] if r["tokens_per_param"] not in per_param]
            rows = stay + rows
            kept = old["config"].get("kept")  # of a record that was itself added to
            if kept is None:
                kept = {key: old[key] for key in ("command", "commit", "date")}
            kept["tokens_per_param"] = sorted({r["tokens_per_param"] for r in stay})
            said = config | {"kept": kept}
        print(write_record(f"growth.{name}", rows, line, said, note, out=given.out))
    return EXIT_OK


def _earlier(
    out: Path, wanted: Sequence[str], per_param: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Records of `target` that stay beside numbers of tokens that are run now.

    Raises:
      UserError: where the first number is neither asked for nor recorded.
    """
    if "target" not in wanted or TOKENS_PER_PARAM[0] in per_param:
        return {}
    try:
        return {
            name: read_record(f"growth.{name}", out)
            for name in ("target", "target_trials", "target_runs")
            if name != "target_runs" or (out / "growth.target_runs.json").exists()
        }
    except UserError as error:
        first = TOKENS_PER_PARAM[0]
        raise UserError(
            f"{error}; add --per-param {first}: rates come from it"
        ) from None


def measure_with(runs: Path) -> Any:
    """What is read off the run of a job, by the job's name."""
    return lambda name: functools.partial(measured, runs / name)


def measured(folder: Path, result: Result) -> dict[str, Any]:
    """Growth, phases and the training loss of every step of a run."""
    lines = [r for r in read_metrics(folder / "metrics.jsonl") if "loss" in r]
    return {
        "growth": result.summary["growth"],
        "phases": result.summary["phases"],
        "final_params": result.summary["params"],
        "losses": [round(float(line["loss"]), 4) for line in lines],
        **_routed(lines),
    }


def _routed(lines: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Load and drops of the router over the last 20 steps."""
    keys = ("router_load_max", "router_dropped")
    last = [line for line in lines[-20:] if all(key in line for key in keys)]
    mean = lambda key: sum(float(line[key]) for line in last) / len(last)
    return {key: mean(key) for key in keys} if last else {}


if __name__ == "__main__":
    sys.exit(main())
