"""What layers and heads did over a run: maps, the last values, the noise scale."""

import math
from collections.abc import Sequence
from itertools import starmap
from typing import Any, NamedTuple

from uets_jax.report.blocks import Block, Cell, Note, Picture, Table, cell, filled
from uets_jax.report.heatmap import Row, extremes, heatmap
from uets_jax.report.markup import escape, render
from uets_jax.report.run import Run
from uets_jax.report.scale import Point, number

MOST_COLUMNS, FEWEST_COLUMNS = 200, 12
MOST_ROWS = 96  # of one map
CELLS = 4000  # of all maps of a page, about


class Look(NamedTuple):
    """One reading of a model's layers."""

    step: float
    signals: dict[str, Any]


class Signal(NamedTuple):
    """One kind of reading; `told` says how to read its map."""

    key: str
    name: str
    told: str
    root: bool = False


BY_LAYER = (
    Signal(
        "influence",
        "Influence",
        "How far a layer turns what passes through it, 1 - cos(in, out). 0: it changes "
        "nothing.",
        root=True,
    ),
    Signal(
        "removal",
        "Removal",
        "Rise of the loss in nats per token where the layer is skipped. At 0 or below: "
        "nothing would be missed.",
        root=True,
    ),
    Signal(
        "rank",
        "Effective rank",
        "How many directions a layer's output fills, from 1 up to the width.",
    ),
    Signal(
        "similarity",
        "Head similarity",
        "Mean cosine of the attention maps of two heads of a layer. 1: they are copies.",
    ),
    Signal(
        "saturation",
        "Saturation",
        "log10 of the RMS of a layer's parameters over that of its gradient. High: it "
        "learns little.",
    ),
)
HEADS = Signal(
    "heads",
    "Head importance",
    "How much the loss hangs on each head, beside the other heads of its layer. Near 0: "
    "it could be pruned.",
)
ROOT = " Shade: square root."


def looks(run: Run) -> list[Look]:
    """The readings in the order of their steps; of a step taken twice the last one."""
    found: list[Look] = []
    for record in reversed(run.records):
        step, signals = number(record.get("step")), record.get("signals")
        if step is None or not isinstance(signals, dict):
            continue
        if not found or step < found[-1].step:
            found.append(Look(step, signals))
    return found[::-1]


def noise(found: Sequence[Look]) -> list[Point]:
    """The gradient noise scale against steps, where it is positive and finite."""
    values = ((look.step, number(look.signals.get("noise_scale"))) for look in found)
    return [(step, v) for step, v in values if v is not None and v > 0]


def maps(
    found: Sequence[Look], marks: Sequence[tuple[float, str]], pages: int = 1
) -> list[Block]:
    """A map for each kind of reading that is there, and the last look in figures.

    Args:
      marks: steps at which the model's shape changed, and what happened.
      pages: how many runs share the page.
    """
    rows = {s: rows_of(found, s.key) for s in (*BY_LAYER, HEADS)}
    rows = {s: r for s, r in rows.items() if extremes(r)}
    if not rows:
        return []
    room = CELLS // pages // sum(len(r) for r in rows.values())
    picks = spread(len(found), min(MOST_COLUMNS, max(FEWEST_COLUMNS, room)))
    steps = [found[i].step for i in picks]
    thin = lambda row: row._replace(values=[row.values[i] for i in picks])
    figures = lambda: [
        _figure(signal, [thin(row) for row in those], steps, marks)
        for signal, those in rows.items()
    ]
    draw = lambda: f'<div class="pair">{"".join(figures())}</div>'
    blocks: list[Block] = [Picture(draw, figures=last_look(found, list(rows)))]
    hidden = [
        f"{len(_all_rows(found, s.key)) - MOST_ROWS} rows of {s.name.lower()}"
        for s in rows
        if len(_all_rows(found, s.key)) > MOST_ROWS
    ]
    return blocks + ([Note(f"Not shown: {', '.join(hidden)}.")] if hidden else [])


def _figure(
    signal: Signal,
    rows: Sequence[Row],
    steps: Sequence[float],
    marks: Sequence[tuple[float, str]],
) -> str:
    name = "layer.head" if signal is HEADS else "layer"
    title = f"{signal.name} of each {name} against steps"
    svg = heatmap(rows, steps, title, name, marks, signal.root)
    told = render(Note(signal.told + ROOT * signal.root))
    caption = f"<figcaption>{escape(signal.name)}</figcaption>"
    return f"<figure>{caption}{told}{svg}</figure>"


def spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` indices, evenly spaced, both ends among them."""
    kept = min(count, most)
    return [round(i * (count - 1) / max(1, kept - 1)) for i in range(kept)]


def rows_of(found: Sequence[Look], key: str) -> list[Row]:
    """A row for each layer, or head, that was ever there; at most `MOST_ROWS`."""
    return _all_rows(found, key)[:MOST_ROWS]


def _all_rows(found: Sequence[Look], key: str) -> list[Row]:
    columns = [_values(look.signals.get(key), key == HEADS.key) for look in found]
    places = sorted(set().union(*columns))
    name = lambda layer, head=None: (
        f"layer {layer}" if head is None else f"layer {layer}, head {head}"
    )
    return [
        Row(".".join(map(str, at)), name(*at), [column.get(at) for column in columns])
        for at in places
    ]


def _values(given: Any, nested: bool) -> dict[tuple[int, ...], float]:
    """By (layer,) or (layer, head); NaN for what is no finite number."""
    layers = given if isinstance(given, list) else []
    if not nested:
        return {(i,): _finite(value) for i, value in enumerate(layers)}
    return {
        (i, j): _finite(value)
        for i, layer in enumerate(layers)
        if isinstance(layer, list)
        for j, value in enumerate(layer)
    }


def _finite(value: Any) -> float:
    found = number(value)
    return math.nan if found is None else found


def last_look(found: Sequence[Look], signals: Sequence[Signal]) -> list[Block]:
    """The newest values of each layer and head as tables, and what they mean."""
    look = found[-1]
    plain = [s for s in signals if s is not HEADS]
    known = [_values(look.signals.get(s.key), False) for s in plain]
    depth = min(MOST_ROWS, max(map(len, known), default=0))
    rows = [
        [Cell(str(i)), *(_shown(values.get((i,))) for values in known)]
        for i in range(depth)
    ]
    names = [s.name.lower() for s in plain]
    told = " ".join(starmap("{}: {}".format, ((s.name, s.told) for s in signals)))
    blocks: list[Block] = [Note(f"The look at step {look.step:.0f}. {told}")]
    if rows:
        blocks.append(filled(Table("last look", ["layer", *names], rows)))
    return blocks + (_heads(look) if HEADS in signals else [])


def _heads(look: Look) -> list[Block]:
    """A row for each layer, a column for each head."""
    values = _values(look.signals.get(HEADS.key), True)
    if not values:
        return []
    layers = sorted({i for i, _ in values})[:MOST_ROWS]
    heads = range(1 + max(j for _, j in values))
    rows = [
        [Cell(str(i)), *(_shown(values.get((i, j))) for j in heads)] for i in layers
    ]
    head = ["layer", *(f"head {j}" for j in heads)]
    return [Note("Importance of each head:"), filled(Table("heads", head, rows))]


def _shown(value: float | None) -> Cell:
    finite = value if value is not None and math.isfinite(value) else None
    return cell(finite, "{:.3g}".format)
