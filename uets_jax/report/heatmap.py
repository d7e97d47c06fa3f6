"""Values of many rows over time as a map of colours, inline SVG."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from uets_jax.report import units
from uets_jax.report.axis import Axis, ticks
from uets_jax.report.marks import GLYPH
from uets_jax.report.markup import escape
from uets_jax.report.scale import Point, Scale
from uets_jax.report.svg import floor

TOP, FOOT = 26.0, 44.0  # above the rows the legend, below them the axis
TALL, FLAT, AIM = 24.0, 7.0, 200.0  # height of a row: most, least; of all: about
LEGIBLE = 11.0  # rows closer than this aren't all labelled
RAMP = 12  # shades in the legend
FAINT = 0.1  # opacity of the least value; what isn't there has none


class Row(NamedTuple):
    """A layer or a head; `None` where it isn't there, NaN where it has no value."""

    label: str
    name: str
    """In full, for hovering."""
    values: Sequence[float | None]
    group: int = 0
    """Rows of one group stand together, a fine line between it and the next."""


def heatmap(
    rows: Sequence[Row],
    steps: Sequence[float],
    title: str,
    name: str = "layer",
    marks: Sequence[tuple[float, str]] = (),
    root: bool = False,
    width: float = 440.0,
) -> str:
    """An `<svg>` element whose first row lies at the bottom.

    Column i reaches from step i to the next one, and is as dark as its value is high;
    the colour is the page's, so that it fits light and dark paper.

    Args:
      steps: of the columns, increasing; as many as each row has values.
      title: what a screen reader says.
      name: what the rows are.
      marks: steps at which something happened, and what.
      root: the shade grows with the square root of the value above the least one.
    """
    height = min(TALL, max(FLAT, AIM / max(1, len(rows))))
    base = TOP + height * len(rows)
    labels = [row.label for row in rows]
    left = 14 + GLYPH * max(map(len, labels), default=1)
    across = Scale(*_span(steps), left, width - 16)
    span = extremes(rows)
    every = math.ceil(LEGIBLE / height)
    body = [f'<text class="name" x="0" y="13">{escape(name)}</text>']
    body += _legend(span, across.end) if span else []
    for i, row in enumerate(rows):
        y = base - height * (i + 1)
        if i % every == 0:
            body.append(
                f'<text class="tick end" x="{left - 7:.1f}" '
                f'y="{y + height / 2 + 4:.1f}">{escape(row.label)}</text>'
            )
        cells = "".join(_cells(row, steps, across, height, span, root))
        body.append(f'<g class="heat" transform="translate(0 {y:.1f})">{cells}</g>')
        if i and row.group != rows[i - 1].group:
            body.append(_parting(across, y + height))
    body += [
        _mark(across(step), base, told)
        for step, told in marks
        if across.low <= step <= across.high
    ]
    body += floor(across, base, _ticks(steps, across))
    body.append(
        f'<text class="name end" x="{across.end:.0f}" y="{base + FOOT - 6:.1f}">'
        "step</text>"
    )
    if not span:
        body.append(
            f'<text class="name end" x="{across.end:.0f}" y="13">no data</text>'
        )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="0 0 {width:g} {base + FOOT:.1f}" role="img" '
        f'aria-label="{escape(title)}">\n'
        f"<desc>{escape(_described(rows, steps, span))}</desc>\n"
        + "\n".join(body)
        + "\n</svg>"
    )


def extremes(rows: Sequence[Row]) -> Point | None:
    """Least and greatest finite value; None where there is none."""
    known = [v for row in rows for v in row.values if v is not None]
    known = [v for v in known if math.isfinite(v)]
    return (min(known), max(known)) if known else None


def _span(steps: Sequence[float]) -> Point:
    """From the first step to the end of the last column, as wide as the one before."""
    if len(steps) < 2:
        low = steps[0] if steps else 0.0
        return low, low + 1
    return steps[0], 2 * steps[-1] - steps[-2]


def _ticks(steps: Sequence[float], across: Scale) -> list[tuple[float, str]]:
    if len(steps) < 2:
        return [(step, units.si(step, 6)) for step in steps]
    return ticks(Axis("step"), across.low, steps[-1])[1]


def _cells(
    row: Row,
    steps: Sequence[float],
    across: Scale,
    height: float,
    span: Point | None,
    root: bool,
) -> Iterator[str]:
    """A rectangle for each value, with its name on hovering; none where it's None."""
    edges = [round(x, 1) for x in across.pixels([*steps, across.high])]
    for i, value in enumerate(row.values):
        if value is None:
            continue
        look, said = 'class="void"', "no finite value"
        if span is not None and math.isfinite(value):
            look = f'fill-opacity="{_shade(value, span, root):.2f}"'
            said = units.si(value, 4)
        told = f"{row.name}, step {steps[i]:.0f}: {said}"
        yield (
            f'<rect x="{edges[i]:.1f}" width="{edges[i + 1] - edges[i]:.1f}" '
            f'height="{height:.1f}" {look}><title>{escape(told)}</title></rect>'
        )


def _shade(value: float, span: Point, root: bool) -> float:
    """Opacity of a value between the least and the greatest."""
    low, high = span
    share = (value - low) / (high - low) if high > low else 0.5
    return FAINT + (1 - FAINT) * (math.sqrt(share) if root else share)


def _parting(across: Scale, y: float) -> str:
    return (
        f'<line class="parting" x1="{across.start:.1f}" x2="{across.end:.1f}" '
        f'y1="{y:.1f}" y2="{y:.1f}"/>'
    )


def _legend(span: Point, right: float) -> list[str]:
    """Least value, all shades, greatest value, at the top."""
    least, most = (units.si(v) for v in span)
    end = right - GLYPH * len(most) - 6
    shades = "".join(
        f'<rect x="{end - 8 * (RAMP - i):.1f}" y="3" width="8" height="11" '
        f'fill-opacity="{_shade(i / (RAMP - 1), (0.0, 1.0), False):.2f}"/>'
        for i in range(RAMP)
    )
    return [
        f'<text class="tick end least" x="{end - 8 * RAMP - 6:.1f}" y="13">'
        f"{escape(least)}</text>",
        f'<g class="heat ramp">{shades}</g>',
        f'<text class="tick end most" x="{right:.1f}" y="13">{escape(most)}</text>',
    ]


def _mark(x: float, base: float, told: str) -> str:
    ends = f'x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 4:.1f}" y2="{base:.1f}"'
    return (
        f'<g class="mark c1"><title>{escape(told)}</title>'
        f'<line class="hit" {ends}/><line {ends}/></g>'
    )


def _described(rows: Sequence[Row], steps: Sequence[float], span: Point | None) -> str:
    """Where the least and the greatest value are, in words."""
    if span is None:
        return "no data"
    at = [
        next(
            f"{units.si(bound, 4)} ({row.name}, step {step:.0f})"
            for row in rows
            for step, value in zip(steps, row.values, strict=True)
            if value == bound
        )
        for bound in span
    ]
    return f"{len(rows)} rows, {len(steps)} columns; from {at[0]} to {at[1]}"
