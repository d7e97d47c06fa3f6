"""The ladder: every part added one by one, and alone. `... bench --help`.

Builds the tracks from `--data-dir`, tunes every rung, runs all seeds and budgets, and
writes `bench.trials`, `bench.runs` (every final run), `bench.ladder` (the table),
`bench.counts` (what n-gram counts know alone) and the page `RUNS/ladder.html`. The
baselines are those on record (`python -m experiments.baselines`). Stopped at any
moment, the same command goes on.

`--known` takes runs from the records in `--out` in place of making them again: a ladder
can grow rung by rung, on several days. Seconds are timed anew.

`--row TRACK/NAME` runs one recorded row again, with its settings, and says whether it
lands within what its seeds let expect; `--quick` does so with one seed at the smaller
budgets, in minutes, and says that this is not significant.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from experiments import bench_page, page, tracks
from experiments.baseline_rows import measure_with
from experiments.bench_again import again, find, on_record
from experiments.bench_known import recall
from experiments.bench_plan import TRIALS, Ladder, Options
from experiments.bench_rows import recorded, targets
from experiments.bench_tables import write_tables
from experiments.records import RESULTS, check_kept, read_record
from experiments.runner import pin, run_queue, serve
from experiments.script import check_queue, command, ended, queue_parser
from uets_jax.errors import EXIT_OK, UserError, nearest

PREPARE = {"clean": tracks.clean, "mixture": tracks.mixture}
EXIT_DIFFERENT = 1
USUAL = "clean/uets"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code; 1: `--row` or `--quick` found other figures."""
    words = list(sys.argv[1:] if argv is None else argv)
    given = parser().parse_args(words)
    return ended("bench", lambda: run(given, words))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = queue_parser("bench", "runs/bench")
    flag = found.add_argument
    flag("--only", choices=PREPARE, action="append", help="one track")
    flag("--rung", action="append", default=[], help="`+ start`, `mixture/uets/blind`")
    flag("--known", action="store_true", help="don't repeat runs on record")
    flag("--trials", type=int, default=TRIALS, help="of each rung")
    flag("--row", metavar="TRACK/NAME[/MODE]", help="run a recorded row again")
    flag("--quick", action="store_true", help=f"one seed; of --row or {USUAL}")
    return found


def run(given: argparse.Namespace, words: Sequence[str]) -> int:
    """Data, runs, tables; or one row again."""
    check_queue(given)
    if given.trials < 1:
        raise UserError("--trials: must be above 0")
    known = recorded(RESULTS)
    options = Options(
        stores=given.runs / "data",
        targets=targets(known),
        tracks=tuple(given.only or PREPARE),
        names=tuple(given.rung),
        seeds=given.seeds,
        trials=given.trials,
        unit=given.unit,
    )
    if given.row or given.quick:
        rung = find(given.row or USUAL)
        unit = read_record("bench.runs", RESULTS)["config"]["unit_flops"]
        on_record(rung, RESULTS)  # raises before anything is prepared
        PREPARE[rung.track](given.data_dir, given.runs / "data")
        options = dataclasses.replace(options, unit=unit)
        same = again(rung, options, given.runs, RESULTS, given.quick)
        return EXIT_OK if same else EXIT_DIFFERENT
    plan = Ladder(options, measure_with(given.data_dir))
    there = {word for rung in plan.rungs() for word in (rung.name, rung.path)}
    for word in given.rung:
        if word not in there:
            every = Ladder(dataclasses.replace(options, names=())).rungs()
            known = {name for rung in every for name in (rung.name, rung.path)}
            raise UserError(f"--rung {word}: {nearest(word, known)}")
    if given.worker < 0:
        rungs = {(rung.track, rung.name, rung.mode) for rung in plan.rungs()}
        check_kept("bench.runs", ("track", "arm", "mode"), rungs, given.out)
        for track in options.tracks:
            PREPARE[track](given.data_dir, given.runs / "data")
        if given.known:
            print(f"{recall(plan, given.out, given.runs)} runs are on record")
    else:
        pin(given.worker)
        run_queue(plan, given.runs)
        return EXIT_OK
    if given.workers > 1:
        serve(given.workers, "experiments.bench", words)
    results = run_queue(plan, given.runs)
    for path in write_tables(
        plan, results, given.runs, given.out, command("bench", words), given.data_dir
    ):
        print(path)
    rows = read_record("bench.ladder", given.out)["rows"]
    runs = [*read_record("bench.runs", given.out)["rows"]]
    runs += read_record("foundation.baseline_runs", RESULTS)["rows"]
    made = bench_page.page(rows, runs, options.unit)
    print(page.write(made, given.runs / "ladder.html", command("bench", words)))
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
