"""The file of a baseline, JSON, and how it is made from a run's metrics."""

import dataclasses
import json
import math
import operator
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from uets_jax.errors import UserError
from uets_jax.measure.ahead import (
    COSTS,
    FULL_RATE,
    Baseline,
    Curve,
    Setting,
    Smooth,
    costs_of,
    envelope,
    follow,
)

Record = Mapping[str, Any]


def undecayed(records: Iterable[Record]) -> list[Record]:
    """The records up to the last step at the highest learning rate, warm-up included.

    What was validated at that very step is among them: nothing had decayed.
    """
    records = list(records)
    rates = [(i, r["learning_rate"]) for i, r in enumerate(records) if _is_step(r)]
    top = max((rate for _, rate in rates), default=0.0)
    full = [records[i]["step"] for i, rate in rates if rate >= FULL_RATE * top]
    return [r for r in records if r.get("step", math.inf) <= max(full, default=-1)]


def _is_step(record: Record) -> bool:
    return isinstance(record.get("learning_rate"), float) and "event" not in record


def train_curve(records: Iterable[Record]) -> Curve | None:
    """Smoothed training loss against cost."""
    state, points = Smooth(), []
    for record in records:
        loss = record.get("loss")
        if _is_step(record) and isinstance(loss, float) and not record.get("skipped"):
            state = follow(state, loss, costs_of(record))
            points.append((state.loss, state.costs()))
    return _curve([p for p in points if p[1]])


def valid_curve(records: Iterable[Record]) -> Curve | None:
    """Bits per byte of held-out text against cost."""
    there = lambda r: isinstance(r.get("bits_per_byte"), float) and "event" not in r
    return _curve([(r["bits_per_byte"], costs_of(r)) for r in records if there(r)])


def _curve(points: list[tuple[float, dict[str, float]]]) -> Curve | None:
    names = [n for n in COSTS if all(costs.get(n, 0.0) > 0 for _, costs in points)]
    if not points or not {"flops", "tokens"} <= set(names):
        return None
    spent = {name: [costs[name] for _, costs in points] for name in names}
    return envelope([quality for quality, _ in points], spent)


def save_baseline(path: Path, baseline: Baseline) -> None:
    """Writes the file; `read_baseline` gives an equal baseline."""
    text = json.dumps(dataclasses.asdict(baseline), allow_nan=False)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text + "\n", "utf-8")


def read_baseline(path: Path | str) -> Baseline:
    """The baseline in a file.

    Raises:
      UserError: if the file can't be read or is no baseline.
    """
    try:
        found = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"train.baseline: {path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UserError(f"train.baseline: {path}: not JSON; {_MEND}") from None
    try:
        return _baseline(found)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        why = f"train.baseline: {path}: no baseline ({error})"
        raise UserError(f"{why}; {_MEND}") from None


_MEND = "write one with uets baseline RUN --out FILE"


def _baseline(found: dict[str, Any]) -> Baseline:
    curves = {name: _read_curve(found[name]) for name in ("train", "valid")}
    setting = Setting(**found["setting"])
    return Baseline(**{**found, **curves, "setting": setting})


def _read_curve(found: dict[str, Any] | None) -> Curve | None:
    """Raises `ValueError` for values that no curve has."""
    if found is None:
        return None
    rows = {name: row and tuple(map(float, row)) for name, row in found.items()}
    curve = Curve(**rows)
    orders = {"quality": operator.gt, **dict.fromkeys(COSTS, operator.le)}
    for name, rises in orders.items():
        row = getattr(curve, name)
        if row is None and name in ("seconds", "joules"):
            continue
        if not row or len(row) != len(curve.quality) or len(row) < 2:
            raise ValueError(f"{name}: not as many as the others, or fewer than two")
        if not all(map(rises, row, row[1:])) or not all(0 < x < math.inf for x in row):
            raise ValueError(f"{name}: not positive, or in no order")
    return curve
