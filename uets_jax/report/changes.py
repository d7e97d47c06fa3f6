"""The changes of a model's shape, as rows of a table."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from uets_jax.report import units
from uets_jax.report.blocks import DASH, TIMES, Block, Cell, Note, Table, cell, filled
from uets_jax.report.figures import figure
from uets_jax.report.run import Record, Run
from uets_jax.report.scale import number

MOST_ROWS = 40  # changes of one run
ARROW = "\N{RIGHTWARDS ARROW}"
DETAIL = re.compile(r"(.*?) \((.*?)\)(?:; (\d+ leaves .*))?", re.DOTALL)
HEAD = (
    "step",
    "change",
    "loss before",
    "loss after",
    "exact",
    "parameters",
    "FLOPs per step",
    "training FLOPs before",
)


class Change(NamedTuple):
    """One change of shape, in words, and what was measured of it."""

    step: float
    words: str
    why: str
    record: Record


def changes(run: Run) -> list[Change]:
    """Those of the summary, else those among the metrics that were not taken back."""
    events = _last_taken([r for r in run.records if r.get("event") == "growth"])
    told = {r.get("step"): str(r.get("detail") or "") for r in events}
    listed = run.summary.get("growth")
    entries = _records(listed) if isinstance(listed, list) else events
    sizes = run.config.get("model")
    sizes = dict(sizes) if isinstance(sizes, dict) else {}
    found = []
    for entry in entries:
        step = number(entry.get("step"))
        if step is not None:
            words, why = _in_words(entry, told.get(entry["step"], ""), sizes)
            found.append(Change(step, words, why, entry))
    return sorted(found, key=lambda change: change.step)


def _records(value: Any) -> list[Record]:
    return [r for r in value if isinstance(r, dict)] if isinstance(value, list) else []


def _last_taken(events: Sequence[Record]) -> list[Record]:
    """Without the events of steps that were taken again later."""
    kept: list[Record] = []
    for event in reversed(events):
        step = number(event.get("step"))
        if step is not None and (not kept or step < kept[-1]["step"]):
            kept.append(event)
    return kept[::-1]


def _in_words(entry: Record, detail: str, sizes: Record) -> tuple[str, str]:
    """`depth 2 → 4 (identity)` and why; `sizes` are those before it, and then after."""
    parts = DETAIL.fullmatch(detail)
    moved, why, begun = parts.groups() if parts else (detail, "", None)
    if ops := _records(entry.get("ops")):
        moved = ", ".join(_op_in_words(op, sizes) for op in ops)
    count = number(entry.get("begun_anew"))
    begun = begun or (f"{count:.0f} leaves begin anew" if count else "")
    why = str(entry.get("why") or why)
    return moved.replace("->", ARROW) or DASH, "; ".join(filter(None, (why, begun)))


def _op_in_words(op: Record, sizes: Record) -> str:
    field, size = str(op.get("field", DASH)), op.get("size", DASH)
    was = number(sizes.get(field))
    sizes[field] = size
    before = f"{was:.0f} " if was is not None else ""
    how = str(op.get("how") or ("pruned" if op.get("keep") else ""))
    return f"{field} {before}{ARROW} {size}" + (f" ({how})" if how else "")


def table(run: Run, changed: Sequence[Change]) -> list[Block]:
    """A row for each change; [] where there is none."""
    total = figure(run, "train_flops")
    rows = [_row(change, total) for change in changed[:MOST_ROWS]]
    more = len(changed) - MOST_ROWS
    told = [Note(f"{more} more are in metrics.jsonl.")] if more > 0 else []
    return [filled(Table("changes", HEAD, rows, "changes")), *told] if rows else []


def _row(change: Change, total: float | None) -> list[Cell]:
    """One change; ratios, differences and the amount spent stand small."""
    get = lambda key: number(change.record.get(key))
    before, after = get("loss_before"), get("loss_after")
    rise = "" if before is None or after is None else _signed(after - before)
    was, now, spent = get("step_flops_before"), get("step_flops"), get("flops")
    exact = change.record.get("exact")
    share = spent / total if spent is not None and total and spent <= total else None
    return [
        Cell(f"{change.step:.0f}"),
        Cell(change.words, change.why),
        cell(before, "{:.4f}".format),
        cell(after, "{:.4f}".format, rise),
        Cell({True: "yes", False: "no"}[exact] if isinstance(exact, bool) else DASH),
        cell(get("params"), units.si),
        _from_to(was, now),
        Cell(f"{100 * share:.3g}%", units.si(spent or 0.0))
        if share is not None
        else cell(spent, units.si),
    ]


def _signed(value: float) -> str:
    return f"{round(value, 4) + 0.0:+.4f}"


def _from_to(was: float | None, now: float | None) -> Cell:
    if was is None or now is None:
        return cell(now, units.si)
    ratio = f"{now / was:.3g}{TIMES}" if was else ""
    return Cell(f"{units.si(was)} {ARROW} {units.si(now)}", ratio)
