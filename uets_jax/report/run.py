"""A run directory as the report sees it: whatever is there, and what is missing."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from uets_jax.errors import UserError, nearest
from uets_jax.report.metrics import read_metrics
from uets_jax.report.scale import number

Record = dict[str, Any]


class Run(NamedTuple):
    """One run; `notes` are sentences on what is missing or odd.

    `records` are the metrics in order, without those that a rollback took back.
    """

    name: str
    path: Path
    config: Record
    summary: Record
    records: list[Record]
    notes: list[str]


def load_runs(paths: Sequence[Path]) -> list[Run]:
    """The runs in the given order, under names that differ.

    Raises:
      UserError: when there is no run, a directory doesn't exist or holds neither
        metrics.jsonl nor summary.json, or metrics.jsonl has a broken line inside.
    """
    if not paths:
        raise UserError("report: no run directory given; name at least one")
    runs = [load_run(Path(path)) for path in paths]
    names = [run.name for run in runs]
    taken: set[str] = set()
    for i, run in enumerate(runs):
        name = run.name
        if names.count(name) > 1:
            name = f"{name} ({run.path.resolve().name})"
        while name in taken:
            name += "'"
        taken.add(name)
        runs[i] = run._replace(name=name)
    return runs


def base_index(runs: Sequence[Run], base: str) -> int:
    """Which run the others are compared with: by directory or name, else the first.

    Raises:
      UserError: when `base` is none of them.
    """
    if not base:
        return 0
    where = Path(base).resolve()
    for same in (
        lambda run: run.path.resolve() == where,
        lambda run: run.name == base,
        lambda run: run.path.resolve().name == base,
    ):
        found = [i for i, run in enumerate(runs) if same(run)]
        if found:
            return found[0]
    raise UserError(
        f"base {base!r} is no run here: {nearest(base, [run.name for run in runs])}"
    )


def load_run(path: Path) -> Run:
    """Reads one run directory; raises as `load_runs`."""
    if not path.is_dir():
        raise UserError(f"{path}: no such run directory; check the path")
    metrics = path / "metrics.jsonl"
    if not metrics.is_file() and not (path / "summary.json").is_file():
        raise UserError(
            f"{path}: neither metrics.jsonl nor summary.json here; "
            "give the directory that a training run wrote"
        )
    notes: list[str] = []
    config = _object(path / "config.json", "The settings are unknown", notes)
    summary = _object(
        path / "summary.json",
        "The run was interrupted or is still training, and the figures here are those "
        "of its last metrics",
        notes,
    )
    records = read_metrics(metrics) if metrics.is_file() else []
    if not metrics.is_file():
        notes.append("There is no metrics.jsonl, hence no curves.")
    name = summary.get("name") or config.get("name") or path.resolve().name
    kept = _continuous(records)
    notes += [*_status(summary), *_nonfinite(records)]
    notes += _taken_back(len(records) - len(kept))
    return Run(str(name), path, config, summary, kept, notes)


def _object(path: Path, otherwise: str, notes: list[str]) -> Record:
    """The JSON object in a file; {} and a note where there is none."""
    if not path.is_file():
        notes.append(f"There is no {path.name}. {otherwise}.")
        return {}
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        notes.append(f"{path.name} is not a JSON object. {otherwise}.")
        return {}
    return value


def _status(summary: Record) -> list[str]:
    status = summary.get("status") or "completed"
    return [] if status == "completed" else [f"Status of the run: {status}."]


def _continuous(records: list[Record]) -> list[Record]:
    """Drops the losses of steps that were taken again later; keeps all events."""
    alive = [True] * len(records)
    for key in ("loss", "valid_loss"):
        first = math.inf
        for i in reversed(range(len(records))):
            step = number(records[i].get("step"))
            if step is None or "event" in records[i] or key not in records[i]:
                continue
            alive[i] = step < first
            first = min(first, step)
    return [record for record, live in zip(records, alive, strict=True) if live]


def _taken_back(count: int) -> list[str]:
    if not count:
        return []
    return [
        f"{count} metrics record{'s' * (count > 1)} of steps that were taken again "
        "after a rollback: the curves leave these out, their cost is counted."
    ]


def _nonfinite(records: list[Record]) -> list[str]:
    """Looks inside the model aside: there a noise scale may well be infinite."""
    found = ((r.get("step", "unknown"), _listed(r.get("nonfinite"))) for r in records)
    odd = ((s, {str(k) for k in keys if k and not _of_look(k)}) for s, keys in found)
    bad = [(step, keys) for step, keys in odd if keys]
    if not bad:
        return []
    keys = ", ".join(sorted(set().union(*(keys for _, keys in bad))))
    return [
        f"{len(bad)} metrics record{'s' * (len(bad) > 1)} (the first at step "
        f"{bad[0][0]}) held NaN or infinity in {keys}; "
        "the curves leave these points out."
    ]


def _of_look(key: Any) -> bool:
    return str(key).startswith("signals.")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
