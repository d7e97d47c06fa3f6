"""Runs that stand in `optimizer.trials` and `.runs`, see `experiments.known`.

Rows of the learned rule count where its weights are the same, too.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments import known
from experiments.optimizer_plan import OptimizerPlan
from experiments.records import settings_hash
from experiments.runner import Job
from uets_jax.config import to_dict

Known = dict[tuple[Any, ...], dict[str, Any]]
STAGES = {"trials": "trial", "runs": "final"}  # of the tables


def recall(plan: OptimizerPlan, out: Path, runs: Path) -> int:
    """Writes the results on record that the plan wants, and returns how many.

    Args:
      plan: what is wanted.
      out: folder of the records.
      runs: folder of the queue's results; those that it has stay.
    """
    rows = on_record(out, plan.options.digest)
    return known.recall(plan, lambda job: rows.get(key_of(job)), result_of, runs)


def on_record(out: Path, digest: str) -> Known:
    """Rows by what they are of; none where there are no records."""
    found: Known = {}
    for table, stage in STAGES.items():
        config, rows = known.rows_of(f"optimizer.{table}", out)
        for row in rows:
            if row["arm"] == "learned" and config.get("weights_sha256") != digest:
                continue
            found[stage, row["task"], row["arm"], row.get("settings_hash")] = row
    return found


def key_of(job: Job) -> tuple[Any, ...]:
    """What a row of the job's result says that it is of."""
    labels = dict(job.labels)
    names = ("stage", "task", "rule")
    mark = settings_hash(to_dict(job.config))
    return (*(labels[name] for name in names), mark)


def result_of(job: Job, row: Mapping[str, Any]) -> dict[str, Any]:
    """What the tables read of a run, as its row has it."""
    return {
        "diverged": row["diverged"],
        "bits_per_byte": row["bits_per_byte"],
        "steps": job.config.train.steps,
        "params": row.get("params"),
        "flops": {"step": row.get("total_flops") or 0.0},
        "commit": row["commit"],
    }
