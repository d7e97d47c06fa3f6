"""Runs that stand in a record and need not be made again.

A row counts where its config is the one that a plan wants now, by `settings_hash`. It
keeps the commit that it was run at: what has changed in the program since is not looked
at.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from experiments.records import read_record
from experiments.runner import Job, Results, finished
from uets_jax.config import config_hash, to_dict
from uets_jax.errors import UserError
from uets_jax.train.files import told, write_json

Record = Mapping[str, Any]


def recall(
    plan: Callable[[Results], list[Job]],
    row_of: Callable[[Job], Record | None],
    result_of: Callable[[Job, Record], Record],
    runs: Path,
) -> int:
    """Writes the results on record that a plan wants, and returns how many.

    Args:
      plan: from results so far to the jobs that are wanted.
      row_of: the row of a job; None: there is none.
      result_of: what else a result has that is read off its row.
      runs: folder of the queue's results; those that it has stay.
    """
    count = 0
    results: Results = {}
    while True:
        wanted = plan(results)
        found = finished(wanted, results, runs)
        for job in wanted:
            if job.name in results or job.name in found:
                continue
            row = row_of(job)
            if row is not None:
                found[job.name] = written(job, result_of(job, row), runs)
                count += 1
        if not found:
            return count
        results |= found


def rows_of(table: str, out: Path) -> tuple[Record, list[dict[str, Any]]]:
    """(config, rows with the commit that each was run at) of a record; none: empty."""
    try:
        record = read_record(table, out)
    except UserError:
        return {}, []
    rows = [{"commit": record["commit"], **row} for row in record["rows"]]
    return record.get("config", {}), rows


def written(job: Job, own: Record, runs: Path) -> dict[str, Any]:
    """The result of a job, in the queue's folder."""
    result = {
        **own,
        "name": job.name,
        **dict(job.labels),
        "config": to_dict(job.config),
        "config_hash": config_hash(job.config),
    }
    path = runs / f"{job.name}.json"
    with told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, result)
    return result
