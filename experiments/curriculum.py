"""How soon and how well text is learnt in another order than at random.

    python -m experiments.curriculum --workers 2                  both tables
    python -m experiments.curriculum --only pacing --seeds 3      one table

`pacing`: measures of difficulty, pacings, length warm-ups. `synthesis`: rows that the
model, or a pair of scissors, made up. Runs in a queue, resumable. The stores are those
of `experiments.baselines`; that of clean text is made if it isn't there.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import arms, tracks
from experiments.curriculum_plan import (
    BUDGET,
    CURVE_TOKENS,
    EVAL_EVERY,
    RANDOM,
    RATE,
    RECIPE,
    CurriculumPlan,
    Options,
)
from experiments.curriculum_rows import (
    by_arm,
    measure_with,
    pacing_rows,
    synthesis_rows,
)
from experiments.curriculum_synthesis import (
    BEGIN,
    EVERY,
    PART,
    TOKENS,
    run_all,
    synthesis_jobs,
)
from experiments.records import write_record
from experiments.runner import Job, Results, pin, run_queue, serve
from uets_jax.config import CurriculumConfig
from uets_jax.errors import ENDS, EXIT_OK, UserError, exit_code

TABLES = ("pacing", "synthesis")
NOTES = {
    "pacing": (
        "b2 on clean text at U/4, one learning rate; every arm has random order's "
        "steps. to_90_percent: until the validation loss has done 90 % of random "
        "order's mean drop, from log(vocab) to its final loss; curve on the first "
        f"{CURVE_TOKENS} tokens of valid-A every {EVAL_EVERY} steps, lines between. A "
        "curve belongs to a run of fixed horizon: the rate decays over its last 40 %, "
        "and lowers the loss there. speed_up: random's over the arm's, higher is "
        "better; _low, _high: t-interval over paired seeds. bits_per_byte: on all of "
        "valid-B; difference: arm less random, lower is better. FLOPs hold scoring and "
        "what is read off the text beforehand, not the evaluations. constant: all is "
        "admitted, as in random order, of other candidates."
    ),
    "synthesis": (
        f"As curriculum.pacing. From {BEGIN:.0%} of the run on, in every {EVERY}th "
        f"step 1/{PART} of the batch is made up: {TOKENS} tokens sampled where the "
        "model was least sure, or halves of two rows; a rejected one leaves the real "
        "row. synthetic_accepted: share of those that were not rejected."
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    given = parser().parse_args(words)
    try:
        if given.seeds < 1 or given.workers < 1 or not given.unit > 0:
            raise UserError("--seeds, --workers and --unit must be above 0")
        return run(given, words)
    except ENDS as error:
        print(f"curriculum: error: {error}", file=sys.stderr)
        return exit_code(error)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(prog="python -m experiments.curriculum")
    flag = found.add_argument
    flag("--only", choices=TABLES, action="append", help="one table")
    flag("--seeds", type=int, default=Options.seeds)
    flag("--unit", type=float, default=arms.UNIT, help="FLOPs of U")
    flag("--workers", type=int, default=1, help="processes, a core each")
    flag("--out", type=Path, default=Path("results"))
    flag("--runs", type=Path, default=Path("runs/curriculum"))
    flag("--stores", type=Path, default=Path("runs/baselines/data"))
    flag("--data-dir", type=Path, default=Path("../shared/data"))
    flag("--worker", type=int, default=-1, help=argparse.SUPPRESS)
    return found


def run(given: argparse.Namespace, words: Sequence[str]) -> int:
    """Data, runs, tables."""
    options = Options(given.stores, given.seeds, given.unit)
    measured = measure_with(given.runs, given.stores)
    plan = CurriculumPlan(options, measured)
    wanted = tuple(given.only or TABLES)
    made = synthesis_jobs(options, measured) if "synthesis" in wanted else []
    if given.worker >= 0:
        pin(given.worker)
        _serve(given, plan, made, wanted)
        return EXIT_OK
    tracks.clean(given.data_dir, given.stores)
    if given.workers > 1:
        serve(given.workers, "experiments.curriculum", words)
    results = _serve(given, plan, made, wanted)
    for name, rows in tables(plan({}), made, results).items():
        if rows and name in wanted:
            command = " ".join(["python -m experiments.curriculum", *words])
            table, config = f"curriculum.{name}", settings(given)
            note = NOTES[name]
            print(write_record(table, rows, command, config, note, out=given.out))
    return EXIT_OK


def _serve(
    given: argparse.Namespace,
    plan: CurriculumPlan,
    made: list[Job],
    wanted: Sequence[str],
) -> Results:
    """All runs that are wanted; the table of made-up rows needs random order's."""
    base = lambda jobs: [j for j in jobs if dict(j.labels)["arm"] == RANDOM.name]
    whole = "pacing" in wanted
    queue = lambda results: plan(results) if whole else base(plan(results))
    return run_queue(queue, given.runs) | run_all(made, given.runs)


def tables(
    jobs: Sequence[Job], made: Sequence[Job], results: Results
) -> dict[str, list[dict[str, Any]]]:
    """Rows by table, as far as the runs are there."""
    base = by_arm(jobs, results).get(RANDOM.name, [])
    found = {"pacing": pacing_rows(jobs, results)}
    return found | {"synthesis": synthesis_rows(made, results, base)}


def settings(given: argparse.Namespace) -> dict[str, Any]:
    """What all runs share, for the record."""
    curriculum = CurriculumConfig()
    return {
        "recipe": RECIPE,
        "learning_rate": RATE,
        "unit_flops": given.unit,
        "budget_units": BUDGET,
        "width": arms.WIDTH,
        "length": arms.LENGTH,
        "seeds": given.seeds,
        "eval_every": EVAL_EVERY,
        "curve_tokens": CURVE_TOKENS,
        "start": curriculum.start,
        "until": curriculum.until,
        "candidates": curriculum.candidates,
    }


if __name__ == "__main__":
    sys.exit(main())
