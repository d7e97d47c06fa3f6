"""Marks of events on a chart: thin vertical lines with small labels."""

from collections.abc import Sequence
from typing import NamedTuple

from uets_jax.report.blocks import TIMES
from uets_jax.report.markup import escape
from uets_jax.report.scale import Scale
from uets_jax.report.style import COLORS

GLYPH = 6.6  # width in user units of a character in a tick or at a mark
CLOSE, ROWS = 5.0, 3  # marks nearer than this are one; rows for their labels


class Mark(NamedTuple):
    """Something that happened at `x`: a thin vertical line with a small label."""

    x: float
    label: str
    color: int
    detail: str = ""
    """Shown on hovering."""


def drawn(marks: Sequence[Mark], across: Scale, down: Scale) -> list[str]:
    """Lines of the events, each with its label where there is room for one."""
    top, base = down.end, down.start
    rows, parts = [across.start] * ROWS, []
    for pixel, group in _merged(marks, across):
        first = group[0]
        look = f"c{first.color % COLORS}"
        text = first.label + (f" {TIMES}{len(group)}" if len(group) > 1 else "")
        told = "; ".join(dict.fromkeys(m.detail for m in group[:5] if m.detail))
        parts.append(
            f'<g class="mark {look}"><title>{escape(told or text)}</title>'
            f'<line class="hit" x1="{pixel:.1f}" x2="{pixel:.1f}" y1="{top:.1f}" '
            f'y2="{base:.1f}"/><line x1="{pixel:.1f}" x2="{pixel:.1f}" '
            f'y1="{top:.1f}" y2="{base:.1f}"/>'
        )
        width, left = GLYPH * len(text), pixel + 4
        if left + width > across.end:
            left = pixel - 4 - width
        row = next((i for i, free in enumerate(rows) if left >= free), None)
        if row is not None:
            rows[row] = max(left + width, pixel) + 6
            parts.append(
                f'<text x="{left:.1f}" y="{top + 11 + 13 * row:.1f}">'
                f"{escape(text)}</text>"
            )
        parts.append("</g>")
    return parts


def _merged(marks: Sequence[Mark], across: Scale) -> list[tuple[float, list[Mark]]]:
    """Marks from left to right; neighbours of one kind and run that touch are one."""
    groups: list[tuple[float, list[Mark]]] = []
    for mark in sorted(marks, key=lambda m: (m.color, m.label, m.x)):
        pixel = across(mark.x)
        last = groups[-1][1] if groups else []
        alike = last and (last[-1].label, last[-1].color) == (mark.label, mark.color)
        if alike and pixel - across(last[-1].x) < CLOSE:
            last.append(mark)
        else:
            groups.append((pixel, [mark]))
    return sorted(groups, key=lambda group: group[0])
