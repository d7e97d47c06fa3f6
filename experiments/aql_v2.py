"""AQL v2 against uniform sampling, b3, RHO and the oracle.

    python -m experiments.aql_v2 --workers 2                       all of it
    python -m experiments.aql_v2 --only mixture --seeds 3          one table
    python -m experiments.aql_v2 --only overhead                   alone on the machine

Tables: mixture, parts, clean, tables (runs in a queue, resumable); overhead,
uncertainty, stream (scripts of their own, called from here); shares (one run, looked
at step by step). The stores are those of `experiments.baselines`; they are made if they
are not there.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import aql_reference, aql_rows, arms, cleaning, tracks
from experiments.aql_plan import TABLES, AqlPlan, Options
from experiments.records import write_record
from experiments.runner import pin, run_queue, serve
from uets_jax.errors import ENDS, EXIT_OK, UserError, exit_code

NOTE = (
    "uniform: b2 on the whole pool; all arms are its recipe with the data choice and "
    "the learning rate changed. Target: uniform's decayed loss at U, on valid-B. "
    "_ratio_uniform: uniform's tokens or FLOPs over the arm's, higher is better; _ci "
    "bootstrap, _t t-interval. FLOPs hold scoring, statistics and references. "
    "oracle_share: (ratio - 1) / (oracle's ratio - 1), of tokens."
)
ALONE = ("overhead", "uncertainty", "stream", "shares")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    given = parser().parse_args(words)
    try:
        if given.seeds < 1 or given.workers < 1 or not given.unit > 0:
            raise UserError("--seeds, --workers and --unit must be above 0")
        return run(given, words)
    except ENDS as error:
        print(f"aql_v2: error: {error}", file=sys.stderr)
        return exit_code(error)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(prog="python -m experiments.aql_v2")
    flag = found.add_argument
    flag("--only", choices=(*TABLES, *ALONE), action="append", help="one table")
    flag("--seeds", type=int, default=Options.seeds)
    flag("--unit", type=float, default=Options.unit, help="FLOPs of U")
    flag("--workers", type=int, default=1, help="processes, a core each")
    flag("--out", type=Path, default=Path("results"))
    flag("--runs", type=Path, default=Path("runs/aql"))
    flag("--stores", type=Path, default=Path("runs/baselines/data"))
    flag("--data-dir", type=Path, default=Path("../shared/data"))
    flag("--worker", type=int, default=-1, help=argparse.SUPPRESS)
    return found


def run(given: argparse.Namespace, words: Sequence[str]) -> int:
    """Data, runs, tables."""
    wanted = given.only or [*TABLES, *ALONE]
    queued = tuple(name for name in wanted if name in TABLES)
    options = Options(given.stores, queued, given.seeds, given.unit)
    plan = AqlPlan(options)
    if given.worker >= 0:
        pin(given.worker)
        run_queue(plan, given.runs)
        return EXIT_OK
    tracks.clean(given.data_dir, given.stores)
    tracks.mixture(given.data_dir, given.stores)
    cleaning.prepare(given.stores)
    command = " ".join(["python -m experiments.aql_v2", *words])
    if queued:
        _queued(given, words, plan, command)
    for name in wanted:
        if name in ALONE:
            alone(name, given)
    return EXIT_OK


def _queued(
    given: argparse.Namespace, words: Sequence[str], plan: AqlPlan, command: str
) -> None:
    reference = None
    if "mixture" in plan.options.tables:
        reference = aql_reference.reference(given.stores, given.runs)
    if given.workers > 1:
        serve(given.workers, "experiments.aql_v2", words)
    results = run_queue(plan, given.runs)
    found = aql_rows.runs_of(plan, plan.arms(), results, costs(given.stores), reference)
    config = {
        "unit_flops": given.unit,
        "width": arms.WIDTH,
        "length": arms.LENGTH,
        "seeds": given.seeds,
        "reference": reference,
    }
    for name, rows in aql_rows.tables(found).items():
        if rows and name.partition(".")[2] in plan.options.tables:
            print(write_record(name, rows, command, config, NOTE, out=given.out))


def costs(stores: Path) -> dict[str, float]:
    """FLOPs of making the cleaned texts, by name."""
    names = ("b3.target.0.15", "b3.blind.0.3")
    read: Any = lambda name: json.loads((stores / f"{name}.json").read_text("utf-8"))
    said: Mapping[str, Any] = {name: read(name) for name in names}
    return {name: float(one["statistics_flops"]) for name, one in said.items()}


def alone(name: str, given: argparse.Namespace) -> None:
    """A table that has a script of its own."""
    from experiments import aql_overhead, aql_shares, aql_stream, aql_uncertainty

    scripts = {
        "overhead": aql_overhead.main,
        "uncertainty": aql_uncertainty.main,
        "stream": aql_stream.main,
        "shares": aql_shares.main,
    }
    stores = ["--stores", str(given.stores)]
    sample = f"jsonl:{given.stores}/pool/sample.jsonl"
    source = ["--source", tracks.store(given.stores, "mixture", "a")]
    data = ["--data-dir", str(given.data_dir)]
    words = {
        "overhead": [*source, "--target", sample],
        "uncertainty": ["--runs", str(given.runs / name), *stores, *data],
        "stream": ["--runs", str(given.runs / name), *data],
        "shares": ["--runs", str(given.runs), *stores, "--unit", f"{given.unit:g}"],
    }
    if scripts[name](["--out", str(given.out), *words[name]]):
        raise UserError(f"{name}: failed, see above")


if __name__ == "__main__":
    sys.exit(main())
