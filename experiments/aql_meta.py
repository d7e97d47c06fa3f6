"""The knobs of the selection, learned offline by evolution strategies on short runs.

    python -m experiments.aql_meta --workers 2

Some 40 runs of U/16 on the mixture pool in mode `target`, read on valid-A. What is
found is shipped as `uets_jax/meta/weights/aql.json` with what it cost; the comparison
with the start on fresh seeds is the record `aql.meta`.
"""

import argparse
import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import aql_plan, arms
from experiments.aql_plan import Arm, Options
from experiments.foundation import training_flops
from experiments.records import write_record
from experiments.runner import Job, Results, pin, run_queue, serve
from uets_jax.config import KnobsConfig
from uets_jax.errors import ENDS, EXIT_OK, exit_code
from uets_jax.measure.machine import commit
from uets_jax.meta import knobs as assets
from uets_jax.meta.evolution import Point, next_points, outcome
from uets_jax.meta.knobs import Asset, Knob
from uets_jax.meta.strategy import EvolutionConfig

RATE = 0.01
START = KnobsConfig()
SEARCHED = (
    Knob("temperature", 0.05, 4.0, True, START.temperature),
    Knob("final_temperature", 0.02, 2.0, True, START.final_temperature),
    Knob("novelty", 1.0, 20.0, True, START.novelty),
    Knob("natural", -3.0, -0.2, False, START.natural),
    Knob("staleness", 0.0, 0.02, False, START.staleness),
    Knob("uncertainty", -1.0, 1.0, False, START.uncertainty),
    Knob("progress", -1.0, 1.0, False, START.progress),
)
BUDGET = 0.0625  # of U
SHIPPED = "aql"


class Search:
    """The plan: the runs of the generations that can be planned."""

    def __init__(self, options: Options, config: EvolutionConfig) -> None:
        self.options, self.config = options, config

    def __call__(self, results: Results) -> list[Job]:
        """All runs so far, and those that may be made now."""
        jobs: list[Job] = []
        while True:
            losses = [results[j.name]["bits_per_byte"] for j in jobs]
            known = [float("inf") if loss is None else loss for loss in losses]
            points = next_points(SEARCHED, known, self.config)
            fresh = [self.job(len(jobs) + i, p) for i, p in enumerate(points)]
            jobs += fresh
            if not fresh or any(job.name not in results for job in fresh):
                return jobs

    def job(self, number: int, point: Point) -> Job:
        """The run of a point."""
        chosen = (*aql_plan.AQL, ("policy", False), ("knobs", point.values))
        arm = Arm("aql_v2", "target", "mixture", select=chosen)
        config = aql_plan.configure(self.options, arm, BUDGET, point.seed, RATE, "a")
        train = dataclasses.replace(config.train, eval_tokens=aql_plan.EVAL_TOKENS)
        config = dataclasses.replace(config, train=train)
        labels = {"phase": point.phase, "seed": point.seed, **point.settings}
        return Job(f"meta/{number:03d}", config, tuple(labels.items()))


def write(search: Search, results: Results, out: Path, command: str) -> Path:
    """The shipped asset, and the record of the search."""
    jobs = search(results)
    records = [results[job.name] for job in jobs]
    losses = [r["bits_per_byte"] or float("inf") for r in records]
    found = outcome(SEARCHED, losses, search.config)
    flops = float(sum(training_flops(r) for r in records if not r["diverged"]))
    asset = Asset(
        name=SHIPPED,
        values={n: float(f"{v:.4g}") for n, v in found.settings[found.chosen].items()},
        flops=flops,
        runs=len(records),
        commit=commit() or "unknown",
        seeds=tuple(sorted({r["seed"] for r in records})),
        source=command,
        note=f"{found.chosen} of the search; see results/aql.meta.json",
    )
    assets.write(assets.SHIPPED / f"{SHIPPED}.json", asset)
    row = {
        "chosen": found.chosen,
        "runs": found.runs,
        "total_flops": flops,
        "bits_per_byte": finite(found.loss),
        "start_bits_per_byte": finite(found.start_loss),
        "standard_error": finite(found.error),
    }
    rows = [
        {**row, "settings": name, **values} for name, values in found.settings.items()
    ]
    config = {"budget_units": BUDGET, "unit_flops": arms.UNIT, "learning_rate": RATE}
    note = "losses of the chosen settings and of the start on seeds that chose nothing"
    return write_record("aql.meta", rows, command, config, note, out=out)


def finite(value: float) -> float | None:
    """None where a run diverged, or there is but one seed."""
    return value if math.isfinite(value) else None


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    found = argparse.ArgumentParser(prog="python -m experiments.aql_meta")
    flag = found.add_argument
    flag("--stores", type=Path, default=Path("runs/baselines/data"))
    flag("--runs", type=Path, default=Path("runs/aql"))
    flag("--out", type=Path, default=Path("results"))
    flag("--workers", type=int, default=1, help="processes, a core each")
    flag("--worker", type=int, default=-1, help=argparse.SUPPRESS)
    given = found.parse_args(words)
    search = Search(Options(given.stores, ()), EvolutionConfig())
    try:
        if given.worker >= 0:
            pin(given.worker)
            run_queue(search, given.runs)
            return EXIT_OK
        if given.workers > 1:
            serve(given.workers, "experiments.aql_meta", words)
        results = run_queue(search, given.runs)
        command = " ".join(["python -m experiments.aql_meta", *words])
        print(write(search, results, given.out, command))
    except ENDS as error:
        print(f"aql_meta: error: {error}", file=sys.stderr)
        return exit_code(error)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
