"""The yardstick: tuned baselines. `python -m experiments.baselines --help`.

Builds the two tracks from `--data-dir`, tunes every arm, runs all seeds and budgets,
and writes `foundation.tuning` (every trial), `foundation.baseline_runs` (every final
run) and `foundation.baselines` (the table). Stopped at any moment, the same command
goes on. `--quick` runs one row again and compares it with the record.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import cleaning, tracks
from experiments.baseline_plan import Baselines, Options
from experiments.baseline_rows import measure_with
from experiments.baseline_tables import write_tables
from experiments.runner import pin, run_queue, serve
from uets_jax.errors import ENDS, EXIT_OK, exit_code

PREPARE = {"clean": tracks.clean, "mixture": tracks.mixture}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    given = parser().parse_args(words)
    try:
        return run(given, words)
    except ENDS as error:
        print(f"baselines: error: {error}", file=sys.stderr)
        return exit_code(error)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(prog="python -m experiments.baselines")
    found.add_argument("--only", choices=PREPARE, action="append", help="one track")
    found.add_argument("--tune-only", action="store_true", help="no final runs")
    found.add_argument("--seeds", type=int, default=3)
    found.add_argument("--unit", type=float, default=Options.unit, help="FLOPs of U")
    found.add_argument("--workers", type=int, default=1, help="processes, a core each")
    found.add_argument("--out", type=Path, default=Path("results"))
    found.add_argument("--runs", type=Path, default=Path("runs/baselines"))
    found.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    found.add_argument("--worker", type=int, default=-1, help=argparse.SUPPRESS)
    return found


def run(given: argparse.Namespace, words: Sequence[str]) -> int:
    """Data, runs, tables."""
    options = Options(
        stores=given.runs / "data",
        tracks=tuple(given.only or PREPARE),
        seeds=given.seeds,
        unit=given.unit,
        tune_only=given.tune_only,
    )
    plan = Baselines(options, measure_with(given.data_dir))
    if given.worker >= 0:
        pin(given.worker)
        run_queue(plan, given.runs)
        return EXIT_OK
    for track in options.tracks:
        PREPARE[track](given.data_dir, options.stores)
    if "mixture" in options.tracks:
        cleaning.prepare(options.stores)
    if given.workers > 1:
        serve(given.workers, "experiments.baselines", words)
    results = run_queue(plan, given.runs)
    command = " ".join(["python -m experiments.baselines", *words])
    for path in write_tables(plan, results, given.runs, given.out, command):
        print(path)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
