"""Runs that stand in `bench.trials` and `.runs`, see `experiments.known`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments import known
from experiments.bench_plan import Ladder
from experiments.records import settings_hash
from experiments.runner import Job
from uets_jax.config import to_dict

TABLES = ("trials", "runs")
NAMES = ("stage", "arm", "track", "mode", "counting")
ENDING = "_flops"
TOTAL = f"total{ENDING}"


def recall(plan: Ladder, out: Path, runs: Path) -> int:
    """Writes the results on record that the plan wants, and returns how many.

    Args:
      plan: what is wanted.
      out: folder of the records.
      runs: folder of the queue's results; those that it has stay.
    """
    found = {
        (*(row.get(name) for name in NAMES), row["settings_hash"]): row
        for table in TABLES
        for row in known.rows_of(f"bench.{table}", out)[1]
    }
    return known.recall(plan, lambda job: found.get(key_of(job)), result_of, runs)


def key_of(job: Job) -> tuple[Any, ...]:
    """What a row of the job's result says that it is of."""
    labels = dict(job.labels)
    mark = settings_hash(to_dict(job.config))
    return (*(labels.get(name) for name in NAMES), mark)


def result_of(job: Job, row: Mapping[str, Any]) -> dict[str, Any]:
    """The result that `baseline_rows.run_row` made the row of."""
    kinds = {k: v for k, v in row.items() if k.endswith(ENDING) and k != TOTAL}
    apart = {*kinds, TOTAL, "train_seconds", "settings_hash"}
    return {
        **{k: v for k, v in row.items() if k not in apart},
        "flops": {k.removesuffix(ENDING): v for k, v in kinds.items()},
        "seconds": {"train": row.get("train_seconds")},
    }
