"""Records of what was measured: one JSON file per table in `results/`."""

import datetime
import hashlib
import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from uets_jax.config import ExperimentConfig, to_dict
from uets_jax.errors import UserError
from uets_jax.measure.machine import commit, machine, versions
from uets_jax.train.files import told, write_json

RESULTS = Path(__file__).parents[1] / "results"


def write_record(
    table: str,
    rows: list[dict[str, Any]],
    command: str,
    config: dict[str, Any],
    notes: str = "",
    out: Path = RESULTS,
) -> Path:
    """Writes `out/<table>.json`, in place of an older one, and returns its path.

    Commit, date, machine class and versions are added here.

    Args:
      table: topic and table, such as `foundation.loop_overhead`.
      rows: flat dicts of numbers, texts, truth values and None; array scalars become
        numbers. Units stand in the key (`_flops`, `_seconds`, `_joules`, `_bytes`).
      command: the words that measure it again.
      config: what was run, as JSON can hold it.
      notes: what a reader of the numbers must know.
      out: the directory.

    Raises:
      UserError: for a bad name, no rows, a value that is not flat, or a number that is
        not finite.
    """
    _check(table, rows, config)
    record = {
        "table": table,
        "command": command,
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "config": config,
        "notes": notes,
        "rows": [_flat(row, f"{table}: row {i}") for i, row in enumerate(rows)],
    }
    path = Path(out) / f"{table}.json"
    with told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, record)
    return path


def read_record(table: str, out: Path = RESULTS) -> dict[str, Any]:
    """The record of a table.

    Raises:
      UserError: when its file is missing or is not the record of this table.
    """
    path = Path(out) / f"{table}.json"
    try:
        record = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}") from None
    if not isinstance(record, dict) or record.get("table") != table:
        raise UserError(f"{path}: not the record of {table}")
    missing = {"rows", "machine", "date", "command"} - record.keys()
    if missing:
        raise UserError(f"{path}: {', '.join(sorted(missing))} is missing")
    return record


def check_kept(
    table: str,
    keys: Sequence[str],
    wanted: Collection[tuple[Any, ...]],
    out: Path,
    how: str = "",
) -> None:
    """Keeps a part of a table from taking the place of more of it.

    Args:
      table: whose record there may be.
      keys: names of what tells its rows apart.
      wanted: the values of `keys` that the new record will have.
      out: folder of the records.
      how: to ask for all of them.

    Raises:
      UserError: naming the first row that would be lost.
    """
    try:
        rows = read_record(table, out)["rows"]
    except UserError:
        return
    found = [tuple(row[key] for key in keys) for row in rows]
    lost = [" ".join(map(str, filter(None, row))) for row in found if row not in wanted]
    if lost:
        raise UserError(
            f"{out}/{table}.json has {lost[0]} and {len(lost) - 1} more that this run "
            f"would not: give another --out, or ask for all of them {how}".rstrip()
        )


def settings_hash(config: Mapping[str, Any]) -> str:
    """Of what a config (as `to_dict` has it) says other than by default.

    Unlike `config_hash` it stays the same when the program learns new settings.
    """
    usual = to_dict(ExperimentConfig())
    text = json.dumps(_departures(config, usual), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _departures(own: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, value in own.items():
        base = usual.get(name)
        if isinstance(value, Mapping) and isinstance(base, Mapping):
            inner = _departures(value, base)
            found |= {name: inner} if inner else {}
        elif value != base:
            found[name] = value
    return found


def _check(table: str, rows: list[dict[str, Any]], config: dict[str, Any]) -> None:
    if not re.fullmatch(r"\w+(\.\w+)+", table):
        raise UserError(f"{table!r}: not the name of a table: use topic.table")
    if not rows:
        raise UserError(f"{table}: no rows")
    try:
        json.dumps(config, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"{table}: config: {error}") from None


def _flat(row: dict[str, Any], where: str) -> dict[str, Any]:
    """The row with plain values; refuses what a table can't show."""
    plain = {k: v.item() if _is_scalar(v) else v for k, v in row.items()}
    for key, value in plain.items():
        if not (value is None or isinstance(value, bool | int | float | str)):
            raise UserError(f"{where}: {key}: {value!r} is not a number or a text")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{where}: {key}: {value} is not finite")
    return plain


def _is_scalar(value: Any) -> bool:
    """A number of NumPy or JAX."""
    return getattr(value, "shape", None) == () and hasattr(value, "item")
