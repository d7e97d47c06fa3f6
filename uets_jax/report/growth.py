"""How a run changed its model's shape, what that cost, and what the layers did."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from uets_jax.report import looks, units
from uets_jax.report.axis import Axis
from uets_jax.report.blocks import (
    DASH,
    TIMES,
    Block,
    Cell,
    Heading,
    Note,
    Picture,
    Table,
    cell,
    filled,
)
from uets_jax.report.figures import figure
from uets_jax.report.markup import render
from uets_jax.report.run import Record, Run
from uets_jax.report.scale import Point, number
from uets_jax.report.svg import Series, chart

MOST_ROWS = 40  # changes of one run
MAPPED = 4  # runs whose layers are drawn
HALF = (440, 260)
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
TOLD = (
    "Losses in nats per token, on one batch, right before and right after the change. "
    "Exact: it keeps the function that the model computes, up to rounding."
)
NOISE = (
    "Batches of far fewer rows waste no data; far more rows hardly help. Readings of "
    "one batch each, so they scatter."
)


class Change(NamedTuple):
    """One change of shape, in words, and what was measured of it."""

    step: float
    words: str
    why: str
    record: Record


def growth(runs: Sequence[Run]) -> list[Block]:
    """Changes, cost per step and noise scale, and of each run its layers over time."""
    changed = [changes(run) for run in runs]
    looked = [looks.looks(run) for run in runs]
    if not any(changed) and not any(looked):
        return []
    blocks: list[Block] = [Note(TOLD)] if any(changed) else []
    stairs = [_stairs(*pair) for pair in zip(runs, changed, strict=True)]
    noises = [looks.noise(found) for found in looked]
    if any(stairs) or any(noises):
        blocks.append(Picture(lambda: _charts(stairs, noises)))
    blocks += _noise_told(runs, looked, noises)
    drawn = [i for i, found in enumerate(looked) if found][:MAPPED]
    for i, run in enumerate(runs):
        marks = [(c.step, f"step {c.step:.0f}: {c.words}") for c in changed[i]]
        shown = looks.maps(looked[i], marks, len(drawn)) if i in drawn else []
        inside = [*_table(run, changed[i]), *shown]
        head = [Heading(run.name)] if len(runs) > 1 and inside else []
        blocks += [*head, *inside]
    more = sum(map(bool, looked)) - len(drawn)
    told = f"Layers of {more} more run{'s' * (more > 1)} are shown in their own reports."
    return blocks + ([Note(told)] if more else [])


def changes(run: Run) -> list[Change]:
    """Those of the summary, else those among the metrics that were not taken back."""
    events = _last_taken([r for r in run.records if r.get("event") == "growth"])
    told = {r.get("step"): str(r.get("detail") or "") for r in events}
    listed = run.summary.get("growth")
    entries = [r for r in listed if isinstance(r, dict)] if _is(listed) else events
    sizes = run.config.get("model")
    sizes = dict(sizes) if isinstance(sizes, dict) else {}
    found = []
    for entry in entries:
        step = number(entry.get("step"))
        if step is not None:
            words, why = _in_words(entry, told.get(entry["step"], ""), sizes)
            found.append(Change(step, words, why, entry))
    return sorted(found, key=lambda change: change.step)


def _is(value: Any) -> bool:
    return isinstance(value, list)


def _last_taken(events: Sequence[Record]) -> list[Record]:
    """Without the events of steps that were taken again later."""
    kept: list[Record] = []
    for event in reversed(events):
        step = number(event.get("step"))
        if step is not None and (not kept or step < kept[-1]["step"]):
            kept.append(event)
    return kept[::-1]


def _in_words(entry: Record, detail: str, sizes: Record) -> tuple[str, str]:
    """`depth 2 → 4, identity` and why; `sizes` are those before it, and then after."""
    parts = DETAIL.fullmatch(detail)
    moved, why, begun = parts.groups() if parts else (detail, "", None)
    ops = entry.get("ops")
    ops = [op for op in ops if isinstance(op, dict)] if _is(ops) else []
    if ops:
        moved = ", ".join(_op_in_words(op, sizes) for op in ops)
    why = str(entry.get("why") or why)
    return moved.replace("->", ARROW) or DASH, "; ".join(filter(None, (why, begun)))


def _op_in_words(op: Record, sizes: Record) -> str:
    field, size = str(op.get("field", DASH)), op.get("size", DASH)
    was = number(sizes.get(field))
    sizes[field] = size
    before = f"{was:.0f} " if was is not None else ""
    how = str(op.get("how") or ("pruned" if op.get("keep") else ""))
    return f"{field} {before}{ARROW} {size}{' by ' if how else ''}{how}"


def _table(run: Run, changed: Sequence[Change]) -> list[Block]:
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
    exact = {True: "yes", False: "no"}.get(change.record.get("exact") is True)
    known = isinstance(change.record.get("exact"), bool)
    share = spent / total if spent is not None and total and spent <= total else None
    return [
        Cell(f"{change.step:.0f}"),
        Cell(change.words, change.why),
        cell(before, "{:.4f}".format),
        cell(after, "{:.4f}".format, rise),
        Cell(str(exact) if known else DASH),
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


def _stairs(run: Run, changed: Sequence[Change]) -> list[Point]:
    """FLOPs per step against steps, with upright risers; [] where it's unknown."""
    points: list[Point] = []
    for change in changed:
        was = number(change.record.get("step_flops_before"))
        now = number(change.record.get("step_flops"))
        if was is None or now is None:
            return []
        points += [(change.step, was), (change.step, now)]
    last = figure(run, "steps")
    if points:
        points.insert(0, (0.0, points[0][1]))
        points.append((max(last or 0.0, points[-1][0]), points[-1][1]))
    return points


def _charts(stairs: Sequence[list[Point]], noises: Sequence[list[Point]]) -> str:
    """FLOPs per step beside the noise scale, where they are known."""
    found, step = [], Axis("step", zero=True)
    if any(stairs):
        curves = [Series(points, i) for i, points in enumerate(stairs)]
        svg = chart(curves, step, Axis("", zero=True), "FLOPs per step", HALF)
        found.append(_figure("FLOPs per step", svg))
    if any(noises):
        values = [y for points in noises for _, y in points]
        wild = max(values) > 20 * min(values)
        y = Axis("rows", log=wild, zero=not wild, pad=0.04)
        curves = [Series(points, i, "marks") for i, points in enumerate(noises)]
        svg = chart(curves, step, y, "gradient noise scale against steps", HALF)
        found.append(_figure("Gradient noise scale", svg))
    return f'<div class="pair">{"".join(found)}</div>'


def _figure(caption: str, svg: str) -> str:
    return f"<figure><figcaption>{caption}</figcaption>{svg}</figure>"


def _noise_told(
    runs: Sequence[Run],
    looked: Sequence[list[looks.Look]],
    noises: Sequence[list[Point]],
) -> list[Block]:
    """The last noise scale of each run, and how often there was none."""
    said = []
    for run, found, points in zip(runs, looked, noises, strict=True):
        who = f"{run.name}: " if len(runs) > 1 else ""
        if points:
            step, value = points[-1]
            said.append(
                f"{who}{units.si(value)} rows at step {step:.0f}; finite in "
                f"{len(points)} of {len(found)} looks."
            )
    return [Note(" ".join(["Gradient noise scale.", *said, NOISE]))] if said else []
