"""The sections of the page of AQL v2: charts, and what is said of them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.pool_chart import NAMES
from uets_jax.aql.merit import BARRED
from uets_jax.curriculum.stages import STAGES, THRESHOLDS
from uets_jax.report.axis import Axis
from uets_jax.report.blocks import Block, Cell, Note, Picture, Table
from uets_jax.report.markup import escape
from uets_jax.report.scale import Point
from uets_jax.report.style import COLORS
from uets_jax.report.svg import Series, chart

Row = Mapping[str, Any]
Scores = Mapping[str, Mapping[int, np.ndarray]]
SIZE, BINS, PIECES = (440, 300), 40, 25
COLOR = {
    "unique": 0,
    "near": 2,
    "duplicate": 4,
    "word_shuffled": 1,
    "char_shuffled": 3,
    "boilerplate": 6,
}
WORDS = {
    "laplace": "Laplace",
    "mc_dropout": "MC-dropout",
    "target": "Target text",
    "unseen": "Domains that the pool has nothing of",
    "shuffled": "Shuffled text",
}


def kinds(shares: Sequence[Row]) -> list[Block]:
    """Kinds of text in each tenth of a run; the table has repeated windows, too."""
    modes = [*dict.fromkeys(row["mode"] for row in shares if row["mode"])]
    names = [(NAMES[kind][0], color) for kind, color in COLOR.items()]

    def of(mode: str) -> str:
        rows = [row for row in shares if row["mode"] == mode and row["tenth"]]
        at = lambda row, key: (10.0 * (row["tenth"] - 0.5), 100 * row[f"{key}_share"])
        curves = [Series([at(row, k) for row in rows], c) for k, c in COLOR.items()]
        x, y = Axis("share of the run (%)"), Axis("windows (%)", zero=True)
        return _figure(f"Mode {mode}", curves, x, y)

    told = Note(
        "Share of each kind of text among the windows that were trained on, in each "
        "tenth of the run. The selection never reads what kind a window is of. "
        "A duplicate is as good as its original until one of the two was drawn: the "
        "last column of the table."
    )
    draw = lambda: _legend(names) + _pair(map(of, modes))
    return [told, Picture(draw, figures=[_table(shares)])]


def _table(shares: Sequence[Row]) -> Table:
    keys = [*(f"{kind}_share" for kind in COLOR), "repeated_share", "copied_share"]
    rows = []
    for row in shares:
        name = "the pool" if row["mode"] is None else f"mode {row['mode']}"
        when = f", tenth {row['tenth']}" if row["tenth"] else ""
        rows.append([Cell(name + when), *(Cell(f"{row[key]:.1%}") for key in keys)])
    head = [
        "windows of",
        *(NAMES[kind][0] for kind in COLOR),
        "seen before",
        "or a copy of it",
    ]
    return Table("shares", head, rows)


def buffer(scores: Scores) -> list[Block]:
    """Histograms of the scores of the rows that wait, by mode and step."""
    if not any(scores.values()):
        return []
    steps = max(len(of) for of in scores.values())
    names = [("early", 6), ("in the middle", 4), ("at the end", 0)][-steps:]

    def of(mode: str) -> str:
        sound = {n: _sound(keys) for n, keys in scores[mode].items()}
        both = np.concatenate([*sound.values()])
        ends = np.quantile(both, (0.002, 0.998)) if len(both) else np.array([0.0, 1.0])
        edges = np.linspace(ends[0], max(ends[1], ends[0] + 1e-3), BINS + 1)
        curves = [
            Series(_outline(edges, values), color)
            for values, (_, color) in zip(
                sound.values(), names[-len(sound) :], strict=True
            )
        ]
        steps = ", ".join(f"{n:,}" for n in sound)
        title = f"Mode {mode}, after steps {steps}"
        return _figure(title, curves, Axis("score"), Axis("rows", zero=True))

    told = Note(
        "Scores of the rows that wait in the buffer, in deviations of natural text. "
        + " ".join(_barred(mode, of) for mode, of in scores.items())
    )
    return [told, Picture(lambda: _legend(names) + _pair(map(of, scores)))]


def _sound(keys: np.ndarray) -> np.ndarray:
    """Scores of rows that are there and not barred."""
    return keys[keys > -BARRED / 2]


def _barred(mode: str, scores: Mapping[int, np.ndarray]) -> str:
    """How many rows the histogram leaves out."""
    end = scores[max(scores)]
    empty, sound = int(np.isneginf(end).sum()), len(_sound(end))
    return (
        f"Mode {mode} at the end: {sound:,} of {len(end):,} rows are shown, {empty:,} "
        f"are empty and {len(end) - sound - empty:,} barred as unnatural."
    )


def _outline(edges: np.ndarray, values: np.ndarray) -> list[Point]:
    """A histogram as one line; values beyond the edges are in the outer bins."""
    numbers, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    across, up = np.repeat(edges, 2), np.repeat(numbers, 2)
    found = zip(across.tolist(), [0.0, *map(float, up), 0.0], strict=True)
    return [*found]


def stages(metrics: Sequence[Mapping[str, float]]) -> list[Block]:
    """What a curriculum admits and draws, from its metrics by step."""
    if not metrics or "curriculum_stage_high" not in metrics[0]:
        return []
    shown = [("admitted up to", 0), ("drawn, mean", 1), ("next stage", 6)]
    kept = [*zip(STAGES, (2, 0, 4, 1), strict=True)]
    x = Axis("share of the run (%)", zero=True)
    curve = lambda key: _smooth([step[f"curriculum_{key}"] for step in metrics])
    limits = [Series(curve(f"threshold_{name}"), 6) for name in STAGES[1:]]
    drawn = [
        Series(curve(key), i) for i, key in enumerate(("stage_high", "difficulty"))
    ]
    shares = [
        Series([(a, 100 * b) for a, b in curve(f"share_{name}")], color)
        for name, color in kept
    ]
    told = Note(
        "Rarity as difficulty, as a quantile of the pool's windows; the admitted share "
        f"grows linearly. Stages begin at {', '.join(map(str, THRESHOLDS))}."
    )

    def draw() -> str:
        up, part = Axis("quantile", zero=True), Axis("windows (%)", zero=True)
        left = _figure("Admitted difficulty", [*limits, *drawn], x, up)
        right = _figure("Windows of each stage", shares, x, part)
        return _pair((_legend(shown) + left, _legend(kept) + right))

    return [told, Picture(draw)]


def _smooth(values: Sequence[float]) -> list[Point]:
    """Means of at most `PIECES` pieces of a run, against the share of it in percent."""
    parts = np.array_split(np.arange(len(values)), min(PIECES, len(values)))
    known = np.asarray(values, float)
    return [
        (100 * float(p.mean() + 0.5) / len(known), float(known[p].mean()))
        for p in parts
    ]


def calibration(rows: Sequence[Row]) -> list[Block]:
    """Reliability diagrams: one per group of texts, a curve per method."""
    if not rows:
        text = "The record aql.uncertainty holds no reliability: run its script first."
        return [Note(text)]
    methods = [*dict.fromkeys(row["method"] for row in rows)]
    names = [(WORDS.get(str(name), str(name)), i) for i, name in enumerate(methods)]

    def of(group: str) -> str:
        curves = [Series([(0.0, 0.0), (1.0, 1.0)], 6)]
        for i, method in enumerate(methods):
            mine = [r for r in rows if (r["method"], r["group"]) == (method, group)]
            points = sorted((r["confidence"], r["accuracy"]) for r in mine)
            curves.append(Series(points, i, "marks"))
        x, y = Axis("confidence", zero=True), Axis("accuracy", zero=True)
        return _figure(WORDS.get(group, group), curves, x, y)

    groups = dict.fromkeys(row["group"] for row in rows)
    told = Note("A calibrated method lies on the diagonal; below it is overconfident.")
    return [told, Picture(lambda: _legend(names) + _pair(map(of, groups)))]


def _legend(names: Iterable[tuple[str, int]]) -> str:
    items = (
        f'<li><span class="swatch c{color % COLORS}"></span>{escape(name)}</li>'
        for name, color in names
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def _pair(parts: Iterable[str]) -> str:
    return f'<div class="pair">{"".join(f"<div>{part}</div>" for part in parts)}</div>'


def _figure(title: str, curves: Sequence[Series], x: Axis, y: Axis) -> str:
    drawn = chart(curves, x, y, title, SIZE)
    return f"<figure><figcaption>{escape(title)}</figcaption>{drawn}</figure>"
