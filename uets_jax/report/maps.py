"""Maps of what layers and heads did over a run, and the last values as tables."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from uets_jax.report import looks
from uets_jax.report.blocks import Block, Cell, Note, Picture, Table, cell, filled
from uets_jax.report.heatmap import Row, extremes, heatmap
from uets_jax.report.looks import Look
from uets_jax.report.markup import escape, render

MOST_COLUMNS, FEWEST_COLUMNS = 200, 12
MOST_ROWS = 96  # of one map
CELLS = 3600  # of all maps of a page, about
ROOT = " Shade: square root."


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
        "Mean cosine of the attention maps of two heads of a layer. 1: copies.",
    ),
    Signal(
        "units",
        "Units in use",
        "Share of a layer's MLP units over which their importance spreads. 1: all "
        "alike; near 0: few do the work, and the others could be pruned.",
    ),
    Signal(
        "saturation",
        "Saturation",
        "log10 of the RMS of a layer's parameters over that of its gradient. High: it "
        "learns little.",
    ),
)
HEADS = Signal(
    looks.HEADS,
    "Head importance",
    "How much the loss hangs on each head, beside the other heads of its layer. Near "
    "0: it could be pruned.",
)


def maps(
    found: Sequence[Look],
    marks: Sequence[tuple[float, str]],
    sharing: int = 1,
    explained: bool = True,
) -> list[Block]:
    """A map for each kind of reading that is there, and the last look in figures.

    Args:
      marks: steps at which the model's shape changed, and what happened.
      sharing: how many runs divide the page's cells among them.
      explained: each map has a sentence on how to read it.
    """
    every = {s: looks.rows(found, s.key) for s in (*BY_LAYER, HEADS)}
    every = {s: rows for s, rows in every.items() if extremes(rows)}
    if not every:
        return []
    rows = {s: those[:MOST_ROWS] for s, those in every.items()}
    room = CELLS // sharing // sum(len(r) for r in rows.values())
    picks = spread(len(found), min(MOST_COLUMNS, max(FEWEST_COLUMNS, room)))
    steps = [found[i].step for i in picks]
    thin = lambda row: row._replace(values=[row.values[i] for i in picks])
    figures = lambda: [
        _figure(signal, [thin(row) for row in those], steps, marks, explained)
        for signal, those in rows.items()
    ]
    draw = lambda: f'<div class="pair">{"".join(figures())}</div>'
    figured = last_look(found, list(rows), explained)
    blocks: list[Block] = [Picture(draw, figures=figured)]
    hidden = [
        f"{len(those) - MOST_ROWS} rows of {s.name.lower()}"
        for s, those in every.items()
        if len(those) > MOST_ROWS
    ]
    return blocks + ([Note(f"Not shown: {', '.join(hidden)}.")] if hidden else [])


def _figure(
    signal: Signal,
    rows: Sequence[Row],
    steps: Sequence[float],
    marks: Sequence[tuple[float, str]],
    explained: bool,
) -> str:
    name = "layer.head" if signal is HEADS else "layer"
    title = f"{signal.name} of each {name} against steps"
    svg = heatmap(rows, steps, title, name, marks, signal.root)
    told = render(Note(signal.told + ROOT * signal.root)) if explained else ""
    caption = f"<figcaption>{escape(signal.name)}</figcaption>"
    return f"<figure>{caption}{told}{svg}</figure>"


def spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` indices, evenly spaced, both ends among them."""
    kept = min(count, most)
    return [round(i * (count - 1) / max(1, kept - 1)) for i in range(kept)]


def last_look(
    found: Sequence[Look], signals: Sequence[Signal], explained: bool = True
) -> list[Block]:
    """The newest values of each layer and head as tables, and what they mean."""
    look = found[-1]
    plain = [s for s in signals if s is not HEADS]
    known = [looks.values(look, s.key) for s in plain]
    depth = min(MOST_ROWS, max(map(len, known), default=0))
    rows = [
        [Cell(str(i)), *(_shown(values.get((i,))) for values in known)]
        for i in range(depth)
    ]
    names = [s.name.lower() for s in plain]
    told = [[Cell(s.name.lower()), Cell(s.told)] for s in signals]
    meanings = Table("readings", ("reading", "meaning"), told, "settings")
    blocks: list[Block] = [meanings] if explained else []
    blocks.append(Note(f"The look at step {look.step:.0f}:"))
    if rows:
        blocks.append(filled(Table("last look", ["layer", *names], rows)))
    return blocks + (_heads(look) if HEADS in signals else [])


def _heads(look: Look) -> list[Block]:
    """A row for each layer, a column for each head."""
    values = looks.values(look, looks.HEADS)
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
