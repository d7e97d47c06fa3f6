"""Curves in figures: a few values of each, and a line of blocks."""

import bisect
import math
from collections.abc import Callable, Sequence

from uets_jax.report import units
from uets_jax.report.blocks import Block, Cell, Note, Table, cell, filled
from uets_jax.report.figures import pairs
from uets_jax.report.ledger import joules
from uets_jax.report.run import Run
from uets_jax.report.scale import Point, running_mean

ROWS, BARS = 10, 48
LEVELS = "▁▂▃▄▅▆▇█"
Format = Callable[[float], str]
LOSS = "{:.3f}".format
QUALITY = (("validation loss", LOSS), ("bits per byte", LOSS))
AXES: tuple[tuple[str, str, Format], ...] = (
    ("tokens", "tokens", units.si),
    ("flops", "training FLOPs", units.si),
    ("seconds", "training time", units.duration),
    ("joules", "energy measured", joules),
)


def values(runs: Sequence[Run]) -> list[Block]:
    """One run at ten of its steps; several runs at equal tokens and equal FLOPs."""
    if len(runs) == 1:
        table = _along(runs[0])
        return [table] if table.rows else []
    found: list[Block] = [
        table
        for key, name, form in AXES[:2]
        if (table := _equal(runs, key, name, form)).rows
    ]
    told = "Running mean of the training loss at equal cost, nats per token."
    return [Note(told), *found] if found else []


def sparklines(runs: Sequence[Run]) -> str:
    """A line per run: its loss over its steps in block characters, and its ends."""
    drawn = [(run.name, _curve(run, "step")) for run in runs]
    return "\n".join(
        f"{sparkline([y for _, y in points])}  {points[0][1]:.3f} to "
        f"{points[-1][1]:.3f}  {name}"
        for name, points in drawn
        if points
    )


def sparkline(heights: Sequence[float]) -> str:
    """Up to `BARS` evenly spaced heights as blocks between the lowest and highest."""
    if not heights:
        return ""
    last = len(heights) - 1
    count = min(BARS, len(heights))
    kept = [heights[round(i * last / max(1, count - 1))] for i in range(count)]
    low, high = min(kept), max(kept)
    step = (high - low) / (len(LEVELS) - 1) or 1.0
    return "".join(LEVELS[round((v - low) / step)] for v in kept)


def _curve(run: Run, key: str) -> list[Point]:
    """The running mean of the training loss, else the validation loss."""
    trained = sorted(pairs(run, key, "loss"))
    return running_mean(trained) if trained else sorted(pairs(run, key, "valid_loss"))


def _along(run: Run) -> Table:
    """Costs and losses of one run at evenly spaced steps."""
    curve = _curve(run, "step")
    count = min(ROWS, len(curve))
    picks = [round((i + 1) * len(curve) / count) - 1 for i in range(count)]
    columns = (*AXES, ("valid_loss", *QUALITY[0]), ("bits_per_byte", *QUALITY[1]))
    known = [(sorted(pairs(run, "step", key)), form) for key, _, form in columns]
    rows = []
    for step, loss in (curve[i] for i in picks):
        found = [cell(_until(points, step), form) for points, form in known]
        rows.append([Cell(f"{step:.0f}"), Cell(LOSS(loss)), *found])
    head = ("step", "training loss", *(name for _, name, _ in columns))
    return filled(Table("loss in figures", head, rows))


def _until(points: Sequence[Point], step: float) -> float | None:
    """The last height up to `step`."""
    after = bisect.bisect_right(points, (step, math.inf))
    return points[after - 1][1] if after else None


def _equal(runs: Sequence[Run], key: str, name: str, form: Format) -> Table:
    """The runs' losses, interpolated at ten equal costs; no guess beyond their ends."""
    curves = [_curve(run, key) for run in runs]
    ends = [curve[-1][0] for curve in curves if curve]
    longest = max(ends, default=0.0)
    grid = [longest * ((i + 1) / ROWS) for i in range(ROWS)] if longest > 0 else []
    rows = [
        [Cell(form(x)), *(cell(_interpolated(curve, x), LOSS) for curve in curves)]
        for x in grid
    ]
    title = f"loss at equal {name}"
    return Table(title, [name, *(run.name for run in runs)], rows)


def _interpolated(curve: Sequence[Point], x: float) -> float | None:
    after = bisect.bisect_left(curve, (x,))
    if after == len(curve) or (after == 0 and curve[0][0] > x):
        return None
    right = curve[after]
    if right[0] == x or after == 0:
        return right[1]
    left = curve[after - 1]
    return left[1] + (right[1] - left[1]) * (x - left[0]) / (right[0] - left[0])
