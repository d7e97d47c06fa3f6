"""What happened besides steps: as rows of a table and as marks on the curves."""

import bisect
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from uets_jax.report import units
from uets_jax.report.blocks import DASH, TIMES, Block, Cell, Note, Table, cell, filled
from uets_jax.report.figures import pairs
from uets_jax.report.marks import Mark
from uets_jax.report.run import Run
from uets_jax.report.scale import Point, number

MARKED = ("growth", "cooldown", "resume", "rollback", "skip")  # on the curves, too
SINGLE = {"growth": 20, "resume": 20, "rollback": 20, "stopped": 20}
FEW = 3  # events of any other kind get a row each up to this many
MOST_ROWS = 100
COSTS = {"tokens": units.si, "flops": units.si, "seconds": units.duration}
COUNTS = (
    ("skipped_steps", "skipped step", "skipped steps"),
    ("rollbacks", "rollback", "rollbacks"),
    ("resumes", "resume", "resumes"),
)


class Happening(NamedTuple):
    """Events of one kind that make one row."""

    kind: str
    records: Sequence[dict[str, Any]]


def happenings(run: Run) -> list[Happening]:
    """The events of a run in their order; a kind that is frequent becomes one."""
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for record in run.records:
        if record.get("event"):
            by_kind.setdefault(str(record["event"]), []).append(record)
    order = {id(record): i for i, record in enumerate(run.records)}
    found = []
    for kind, records in by_kind.items():
        if len(records) > SINGLE.get(kind, FEW):
            found.append(Happening(kind, records))
        else:
            found += [Happening(kind, [record]) for record in records]
    return sorted(found, key=lambda one: order[id(one.records[0])])


def events(runs: Sequence[Run]) -> list[Block]:
    """How often each run was disturbed, then everything that happened."""
    rows = [
        [Cell(run.name, color=i if len(runs) > 1 else None), *_row(one, known)]
        for i, run in enumerate(runs)
        for found in [happenings(run)]
        for known in [_known(run) if found else {}]
        for one in found
    ]
    blocks: list[Block] = [Note(said) for run in runs if (said := _counts(runs, run))]
    if not rows:
        return blocks
    first = 0 if len(runs) > 1 else 1
    head = ("run", "step", "event", "tokens", "FLOPs", "time", "detail")
    shown = [row[first:] for row in rows[:MOST_ROWS]]
    blocks.append(filled(Table("events", head[first:], shown, "events")))
    more = len(rows) - MOST_ROWS
    return blocks + ([Note(f"{more} more are in metrics.jsonl.")] if more > 0 else [])


def _counts(runs: Sequence[Run], run: Run) -> str:
    """`2 skipped steps, 1 rollback`, or nothing where the summary counts none."""
    found = [(number(run.summary.get(key)), one, many) for key, one, many in COUNTS]
    told = [f"{n:.0f} {one if n == 1 else many}" for n, one, many in found if n]
    who = f"{run.name}: " if len(runs) > 1 else ""
    return f"{who}{', '.join(told)}." if told else ""


def _known(run: Run) -> dict[str, list[Point]]:
    """Each cost against steps."""
    return {key: sorted(pairs(run, "step", key)) for key in COSTS}


def _row(one: Happening, known: dict[str, list[Point]]) -> list[Cell]:
    """Steps, kind and detail; where there are several, the first and the last step."""
    ends = [one.records[0], one.records[-1]]
    steps = [str(r.get("step", DASH)) for r in ends]
    count = len(one.records)
    span, times = steps[0], ""
    if count > 1:
        span, times = DASH.join(steps), f" {TIMES} {count}"
    detail = str(ends[1].get("detail") or "")
    at = [(_position(ends[0], key, known[key]), COSTS[key]) for key in COSTS]
    return [
        Cell(span),
        Cell(one.kind + times),
        *(cell(value, form) for value, form in at),
        Cell(f"last: {detail}" if count > 1 and detail else detail),
    ]


def marks(runs: Sequence[Run], key: str) -> list[Mark]:
    """Where the events of `MARKED` lie on an axis of `key`.

    An event without that counter stands at the last step before it that has one.
    """
    found = []
    for color, run in enumerate(runs):
        happened = [r for r in run.records if r.get("event") in MARKED]
        known = sorted(pairs(run, "step", key)) if happened else []
        for record in happened:
            kind, x = record["event"], _position(record, key, known)
            if x is None:
                continue
            who = f"{run.name}, " if len(runs) > 1 else ""
            detail = f": {record['detail']}" if record.get("detail") else ""
            told = f"{who}step {record.get('step', DASH)}, {kind}{detail}"
            found.append(Mark(x, str(kind), color, told))
    return found


def _position(event: dict[str, Any], key: str, known: Sequence[Point]) -> float | None:
    counted, step = number(event.get(key)), number(event.get("step"))
    if counted is not None or step is None:
        return counted
    after = bisect.bisect_right(known, (step, math.inf))
    return known[after - 1][1] if after else None
