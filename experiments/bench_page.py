"""The page of the ladder: loss against FLOPs, and the ratios, in one file."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from uets_jax.report.axis import Axis
from uets_jax.report.blocks import DASH, Block, Cell, Note, Page, Picture, Section
from uets_jax.report.blocks import Table as Grid
from uets_jax.report.markup import escape
from uets_jax.report.svg import Series, chart

Row = Mapping[str, Any]
SIZE = (640, 360)
DRAWN = {
    "b0": 0,
    "b2m": 5,
    "b3": 6,
    "+ start": 3,
    "+ rows": 2,
    "+ backoff": 4,
    "+ select": 7,
    "uets": 1,
}
RATIOS = {
    "flops_ratio_b0": "FLOPs, b0 at T1",
    "seconds_ratio_b0": "seconds, b0 at T1",
    "flops_ratio_b2m": "FLOPs, b2m at T2",
    "flops_ratio_b3": "FLOPs, b3 at T2",
}
QUALITY = {"blimp_accuracy": "BLiMP", "lambada_dev_bits_per_byte": "last words"}


def page(rows: Sequence[Row], runs: Sequence[Row], unit: float) -> Page:
    """All of it.

    Args:
      rows: of `bench.ladder`.
      runs: of `bench.runs` and of `foundation.baseline_runs`.
      unit: FLOPs of U.
    """
    tracks = dict.fromkeys((row["track"], row["mode"]) for row in rows)
    modes = {t: [m for track, m in tracks if track == t and m] for t, _ in tracks}
    shown = [(t, m) for t, found in modes.items() for m in found or [None]]
    sections = []
    for track, mode in shown:
        here = [r for r in rows if r["track"] == track and r["mode"] in (mode, None)]
        mine = [
            r
            for r in runs
            if r["track"] == track and (r["mode"] or None) in (mode, None)
        ]
        title = f"{track}, mode {mode}" if mode else track
        sections.append(
            Section(title, [*_figure(title, mine, unit), _table(title, here)])
        )
    return Page("The ladder", lead(rows), [], [], sections)


def lead(rows: Sequence[Row]) -> list[str]:
    """What `uets` reaches; of the pieces every second one is stressed."""
    said: list[str] = []
    for row in rows:
        if row["arm"] != "uets":
            continue
        where = " ".join(filter(None, (row["track"], row["mode"])))
        strong = row["t2_arm"]
        said += [f"On {where} uets needs ", _times(row, f"flops_ratio_{strong}")]
        said += [f" fewer FLOPs than {strong} for what that reaches with U, and ", ""]
        said[-1] = _times(row, "flops_ratio_b0")
        said += [" fewer than the standard recipe for what that reaches with U. ", ""]
    return said or ["No run of uets is on record."]


def _times(row: Row, key: str) -> str:
    """`3.1 [2.8, 3.5] times`, or its lower bound."""
    low, high = row.get(f"{key}_t_low"), row.get(f"{key}_t_high")
    if row.get(key) is None:
        bound = row.get(f"{key}_ci_low")
        return f"over {bound:.3g} times" if bound else "an unknown number of times"
    ends = "" if low is None or high is None else f" [{low:.3g}, {high:.3g}]"
    return f"{row[key]:.3g}{ends} times"


def _figure(title: str, runs: Sequence[Row], unit: float) -> list[Block]:
    """Mean bits per byte of every budget against total FLOPs."""
    curves = []
    for arm, color in DRAWN.items():
        mine = [r for r in runs if r["arm"] == arm and r["bits_per_byte"] is not None]
        budgets = sorted({r["budget_units"] for r in mine})
        points = []
        for budget in budgets:
            one = [r for r in mine if r["budget_units"] == budget]
            bits = sum(r["bits_per_byte"] for r in one) / len(one)
            points.append((math.log2(one[0]["total_flops"] / unit), bits))
        curves.append(Series(points, color, "marks", arm))
    axes = Axis("log2 of FLOPs in U"), Axis("bits per byte", pad=0.05)
    draw = lambda: (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f"{chart(curves, *axes, title, SIZE)}</figure>"
    )
    told = Note(
        "Every point is the mean of fully decayed runs of one budget, on valid-B."
    )
    return [told, Picture(draw)]


def _table(title: str, rows: Sequence[Row]) -> Grid:
    head = ["arm", *RATIOS.values(), "bits per byte at U/4", *QUALITY.values()]
    body = []
    for row in rows:
        ratios = [_ratio(row, key) for key in RATIOS]
        quality = [_number(row.get(name)) for name in QUALITY]
        body.append(
            [
                Cell(row["arm"]),
                *ratios,
                _number(row.get("bits_per_byte_u0.25")),
                *quality,
            ]
        )
    return Grid(title, head, body)


def _ratio(row: Row, key: str) -> Cell:
    value, low = row.get(key), row.get(f"{key}_ci_low")
    if value is None:
        return Cell(f"> {low:.3g}") if low else Cell(DASH)
    ends = [row.get(f"{key}_t_{end}") for end in ("low", "high")]
    small = "" if None in ends else f"[{ends[0]:.3g}, {ends[1]:.3g}]"
    return Cell(f"{value:.3g}", small)


def _number(value: float | None) -> Cell:
    return Cell(DASH if value is None else f"{value:.3f}")
