"""Runs that stand in `optimizer.trials` and `.runs` and need not be made again.

A row counts where its config is the one that the plan wants now, by `settings_hash`;
rows of the learned rule where its weights are the same, too. The row keeps the commit
that it was run at: what has changed in the program since is not looked at.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.optimizer_plan import OptimizerPlan
from experiments.records import read_record, settings_hash
from experiments.runner import Job, Results, finished
from uets_jax.config import config_hash, to_dict
from uets_jax.errors import UserError
from uets_jax.train.files import told, write_json

Known = dict[tuple[Any, ...], dict[str, Any]]
STAGES = {"trials": "trial", "runs": "final"}  # of the tables


def recall(plan: OptimizerPlan, out: Path, runs: Path) -> int:
    """Writes the results on record that the plan wants, and returns how many.

    Args:
      plan: what is wanted.
      out: folder of the records.
      runs: folder of the queue's results; those that it has stay.
    """
    known, count = on_record(out, plan.options.digest), 0
    results: Results = {}
    while True:
        wanted = plan(results)
        found = finished(wanted, results, runs)
        for job in wanted:
            if job.name in results or job.name in found:
                continue
            row = known.get(key_of(job))
            if row is not None:
                found[job.name] = written(job, row, runs)
                count += 1
        if not found:
            return count
        results |= found


def on_record(out: Path, digest: str) -> Known:
    """Rows by what they are of; none where there are no records."""
    found: Known = {}
    for table, stage in STAGES.items():
        try:
            record = read_record(f"optimizer.{table}", out)
        except UserError:
            continue
        same = record.get("config", {}).get("weights_sha256") == digest
        for row in record["rows"]:
            if row["arm"] == "learned" and not same:
                continue
            key = stage, row["task"], row["arm"], row.get("settings_hash")
            found[key] = {"commit": record["commit"], **row}
    return found


def key_of(job: Job) -> tuple[Any, ...]:
    """What a row of the job's result says that it is of."""
    labels = dict(job.labels)
    names = ("stage", "task", "rule")
    mark = settings_hash(to_dict(job.config))
    return (*(labels[name] for name in names), mark)


def written(job: Job, row: Mapping[str, Any], runs: Path) -> dict[str, Any]:
    """The result of a job as its row has it, in the queue's folder."""
    result = {
        "name": job.name,
        **dict(job.labels),
        "diverged": row["diverged"],
        "bits_per_byte": row["bits_per_byte"],
        "steps": job.config.train.steps,
        "params": row.get("params"),
        "flops": {"step": row.get("total_flops") or 0.0},
        "commit": row["commit"],
        "config": to_dict(job.config),
        "config_hash": config_hash(job.config),
    }
    path = runs / f"{job.name}.json"
    with told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, result)
    return result
