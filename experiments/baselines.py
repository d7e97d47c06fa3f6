"""The yardstick: tuned baselines. `python -m experiments.baselines --help`.

Builds the two tracks from `--data-dir`, tunes every arm, runs all seeds and budgets,
and writes `foundation.tuning` (every trial), `foundation.baseline_runs` (every final
run), `foundation.baselines` (the table) and `foundation.targets` (T1 and T2). Stopped
at any moment, the same command goes on. `--quick` runs one row again with one seed, in
a few minutes, and compares it with the record.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import cleaning, tracks
from experiments.baseline_plan import Baselines, Options
from experiments.baseline_quick import again, recorded
from experiments.baseline_rows import measure_with
from experiments.baseline_tables import write_tables
from experiments.records import RESULTS
from experiments.runner import pin, run_queue, serve
from uets_jax.errors import ENDS, EXIT_OK, UserError, exit_code

PREPARE = {"clean": tracks.clean, "mixture": tracks.mixture}
EXIT_DIFFERENT = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code; 1: `--quick` found other figures than the record."""
    words = list(sys.argv[1:] if argv is None else argv)
    given = parser().parse_args(words)
    try:
        if given.seeds < 1 or given.workers < 1 or not given.unit > 0:
            raise UserError("--seeds, --workers and --unit must be above 0")
        return quick(given) if given.quick else run(given, words)
    except ENDS as error:
        print(f"baselines: error: {error}", file=sys.stderr)
        return exit_code(error)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(prog="python -m experiments.baselines")
    flag = found.add_argument
    flag("--only", choices=PREPARE, action="append", help="one track")
    flag("--tune-only", action="store_true", help="no final runs")
    flag("--quick", nargs="?", const="clean/b2", metavar="TRACK/ARM", help="one row")
    flag("--seeds", type=int, default=Options.seeds)
    flag("--unit", type=float, default=Options.unit, help="FLOPs of U")
    flag("--workers", type=int, default=1, help="processes, a core each")
    flag("--out", type=Path, default=Path("results"))
    flag("--runs", type=Path, default=Path("runs/baselines"))
    flag("--data-dir", type=Path, default=Path("../shared/data"))
    flag("--worker", type=int, default=-1, help=argparse.SUPPRESS)
    return found


def prepare(given: argparse.Namespace, names: Sequence[str]) -> None:
    """Writes the token stores of the tracks that are not there yet."""
    for track in names:
        PREPARE[track](given.data_dir, given.runs / "data")
    if "mixture" in names:
        cleaning.prepare(given.runs / "data")


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
    prepare(given, ("clean", *options.tracks))  # arms are tuned on clean
    if given.workers > 1:
        serve(given.workers, "experiments.baselines", words)
    results = run_queue(plan, given.runs)
    command = " ".join(["python -m experiments.baselines", *words])
    for path in write_tables(plan, results, given.runs, given.out, command):
        print(path)
    return EXIT_OK


def quick(given: argparse.Namespace) -> int:
    """One row again."""
    recorded(given.quick, RESULTS)  # raises for an unknown one, before anything else
    prepare(given, [given.quick.partition("/")[0]])
    return EXIT_OK if again(given.quick, given.runs, RESULTS) else EXIT_DIFFERENT


if __name__ == "__main__":
    sys.exit(main())
