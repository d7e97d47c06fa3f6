"""The page of a pilot: what helps, by how much, and what that is worth."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from uets_jax.pilot.plan import TOGETHER
from uets_jax.report import html, markdown, units
from uets_jax.report.axis import Axis
from uets_jax.report.blocks import (
    DASH,
    TIMES,
    Block,
    Cell,
    Note,
    Page,
    Picture,
    Sample,
    Section,
    Table,
    Tile,
)
from uets_jax.report.files import replace_text
from uets_jax.report.svg import Series, chart

Found = Mapping[str, Any]  # what `pilot.json` holds
SIZE = (640, 340)
FOOTER = "uets_jax · a pilot; figures from pilot.json"
RATIOS = (
    "FLOPs of the plain run over the method's, both up to the loss that the worse of "
    "the two reaches with its largest run; above 1 is better. Beside it the 95 % "
    "t-interval over paired seeds, or bounds (> and <) where the runs do not reach "
    "each other's loss. Lead: bits per byte below the plain run at equal FLOPs, at "
    "half of the largest budget and at the whole. Counted once: FLOPs before the "
    "first step; arms are compared by the share of them that belongs to a pilot of "
    "this size."
)


def write(found: Found, out: Path) -> list[Path]:
    """Writes `pilot.html` and `pilot.md` into the folder; returns both paths.

    Raises:
      UserError: when they can't be written.
    """
    content = page(found)
    texts = {
        "pilot.html": html.render_page(content, FOOTER),
        "pilot.md": markdown.render_page(content),
    }
    return [replace_text(out / name, text) for name, text in texts.items()]


def page(found: Found) -> Page:
    """All of it."""
    recipe = found["recipe"]
    way = Sample("", recipe["command"]) if recipe["command"] else Note(recipe["why"])
    return Page(
        title=f"Pilot of {found['name']}",
        lead=lead(found),
        warnings=found["warnings"],
        tiles=_tiles(found),
        sections=[
            Section("What helps", [_table(found), Note(RATIOS)]),
            Section("The recipe", [way, *map(Note, recipe["notes"])]),
            Section("Loss against FLOPs", _figure(found)),
            Section("Not tried", _skipped(found)),
        ],
    )


def lead(found: Found) -> list[str]:
    """What helps, in one sentence; every second piece is stressed."""
    names = found["recipe"]["methods"]
    where = f" on {found['source']}, measured at {found['share']:.2%} of the budget."
    if not names:
        return ["No method helps ", "for sure", where]
    by = {row["method"]: row for row in found["methods"]}
    row = by[TOGETHER if len(names) > 1 else names[0]]
    said = f"{' with '.join(names)} {ratio(row)}"
    return ["", said, " fewer FLOPs for the same loss" + where]


def ratio(row: Found) -> str:
    """`1.5x`, or a bound."""
    if row["flops_ratio"] is not None:
        return f"{row['flops_ratio']:.3g}{TIMES}"
    low, high = row["flops_ratio_ci_low"], row["flops_ratio_ci_high"]
    return f"> {low:.3g}{TIMES}" if low else f"< {high:.3g}{TIMES}"


def interval(row: Found) -> str:
    """`[1.3, 1.8]`; a dash where there is no bound."""
    low, high = row["flops_ratio_ci_low"], row["flops_ratio_ci_high"]
    form = lambda v: DASH if not v else f"{v:.3g}"
    return f"[{form(low)}, {form(high)}]"


def verdict(row: Found) -> str:
    """What the interval says."""
    if row["helps"]:
        return "helps"
    high = row["flops_ratio_ci_high"]
    return "costs more" if high is not None and high < 1 else "no sure gain"


def _tiles(found: Found) -> list[Tile]:
    cost, full = found["cost"], found["full"]
    return [
        Tile(
            "methods that help",
            str(sum(map(_helps_alone, found["methods"]))),
            f"of {sum(row['method'] != TOGETHER for row in found['methods'])} tried",
        ),
        Tile("full run", units.flops(full["flops"]), f"{full['steps']:,} steps"),
        Tile(
            "this pilot",
            f"{cost['of_full']:.1%}",
            f"of the full run: {units.flops(cost['flops'])}, {cost['runs']} runs",
        ),
    ]


def _helps_alone(row: Found) -> bool:
    return row["helps"] and row["method"] != TOGETHER


def _table(found: Found) -> Table:
    rows = [
        [
            Cell(row["method"], row["told"], color=i + 1),
            Cell(ratio(row), interval(row)),
            Cell(f"{row['bits_per_byte']:.3f}"),
            Cell(" to ".join(f"{lead:+.3f}" for lead in row["leads"][-2:])),
            Cell(units.flops(row["start_flops"]) if row["start_flops"] else DASH),
            Cell(verdict(row)),
        ]
        for i, row in enumerate(found["methods"])
    ]
    plain = [Cell(f"{found['plain']['bits_per_byte']:.3f}")]
    dashes = [Cell(DASH)]
    first = [Cell("plain", color=0), *dashes, *plain, *dashes, *dashes, *dashes]
    head = ("arm", "FLOPs ratio", "bits per byte", "lead", "counted once", "verdict")
    return Table("what helps", head, [first, *rows])


def _figure(found: Found) -> list[Block]:
    """Mean loss of every budget, over the FLOPs that arms are compared by."""
    lines = [found["plain"], *found["methods"]]
    curves = [
        Series(
            [
                (math.log2(f / found["full"]["flops"]), b)
                for f, b in zip(one["flops"], one["losses"], strict=True)
            ],
            place,
            "marks",
            one["method"],
        )
        for place, one in enumerate(lines)
    ]
    x = Axis("log2 of the share of the full run's FLOPs")
    draw = lambda: (
        "<figure><figcaption>Bits per byte on held-out text</figcaption>"
        + chart(curves, x, Axis("bits per byte", pad=0.05), "loss against FLOPs", SIZE)
        + "</figure>"
    )
    told = Note("Every point is the mean of runs of that budget, each fully decayed.")
    return [told, Picture(draw, figures=[_points(lines)])]


def _points(lines: Sequence[Found]) -> Table:
    rows = [
        [
            Cell(one["method"]),
            *(
                Cell(f"{b:.3f}", units.flops(f))
                for f, b in zip(one["flops"], one["losses"], strict=True)
            ),
        ]
        for one in lines
    ]
    width = max(map(len, rows))
    head = ["arm", *(f"budget {n}" for n in range(1, width))]
    filled = [[*row, *[Cell(DASH)] * (width - len(row))] for row in rows]
    return Table("points", head, filled)


def _skipped(found: Found) -> list[Block]:
    rows = [[Cell(name), Cell(why)] for name, why in found["skipped"].items()]
    return [Table("not tried", ("method", "why"), rows, "settings")] if rows else []
