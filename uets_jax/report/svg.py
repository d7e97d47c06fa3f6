"""Line charts as inline SVG; colours and fonts come from the page's style sheet."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from uets_jax.report import scale, units
from uets_jax.report.axis import Axis, span, ticks
from uets_jax.report.marks import GLYPH, Mark, drawn
from uets_jax.report.markup import escape
from uets_jax.report.scale import Point, Scale
from uets_jax.report.style import COLORS

BOLD = 8.2  # width in user units of a character in a label
LINE = 15.0  # least distance between two direct labels


class Series(NamedTuple):
    """One curve: faint as noise, a line, or marks joined by a fine line."""

    points: Sequence[Point]
    color: int
    style: Literal["faint", "line", "marks"] = "line"
    label: str = ""
    """Written beside its last point."""


def chart(
    series: Sequence[Series],
    x: Axis,
    y: Axis,
    title: str,
    size: tuple[int, int] = (440, 290),
    detail: float = 1.0,
    marks: Sequence[Mark] = (),
) -> str:
    """An `<svg>` element, `size` user units wide and high, that scales with its parent.

    Points that are not positive are left out on a log axis; without any point there is
    a sentence in the frame.

    Args:
      title: what a screen reader says.
      detail: about how many points per pixel a curve keeps.
      marks: events; those outside of the curves' range are left out.
    """
    width, height = map(float, size)
    series = [s._replace(points=_drawable(s.points, x, y)) for s in series]
    points = [p for s in series for p in s.points]
    x_low, x_high = span([p[0] for p in points], x)
    y_low, y_high = span([p[1] for p in points], y)
    x_name, x_ticks = ticks(x, x_low, x_high)
    y_name, y_ticks = ticks(y, y_low, y_high)
    left = 14 + GLYPH * max(len(text) for _, text in y_ticks)
    labels = max((len(s.label) for s in series if s.points), default=0)
    right = width - (14 + BOLD * labels if labels else 16)
    across = Scale(x_low, x_high, left, right, x.log)
    down = Scale(y_low, y_high, height - 44, 28.0 if y.name else 10.0, y.log)
    body = [
        f'<text class="name" x="0" y="13">{escape(y_name)}</text>',
        f'<text class="name end" x="{right:.0f}" y="{height - 6:g}">'
        f"{escape(x_name)}</text>",
        *_grid(across, down, x_ticks, y_ticks),
        *drawn([m for m in marks if x_low <= m.x <= x_high], across, down),
        *(_curve(s, across, down, x, y, detail) for s in series if s.points),
        *_labels(series, across, down, right),
    ]
    if not points:
        body.append(f'<text class="name" x="{left + 12:.0f}" y="60">no data</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'role="img" aria-label="{escape(title)}">\n'
        f"<desc>{escape(_described(series, x, y))}</desc>\n"
        + "\n".join(body)
        + "\n</svg>"
    )


def _described(series: Sequence[Series], x: Axis, y: Axis) -> str:
    """Where each solid curve begins and ends, in words."""
    ends = [
        f"{s.label or 'curve'}: from {_hover(s.points[0], x, y)} "
        f"to {_hover(s.points[-1], x, y)}"
        for s in series
        if s.points and s.style != "faint"
    ]
    return ". ".join(ends) or "no data"


def _drawable(points: Sequence[Point], x: Axis, y: Axis) -> list[Point]:
    return [p for p in points if (p[0] > 0 or not x.log) and (p[1] > 0 or not y.log)]


def _grid(
    across: Scale,
    down: Scale,
    x_ticks: Sequence[tuple[float, str]],
    y_ticks: Sequence[tuple[float, str]],
) -> list[str]:
    """Horizontal rules, the base line, and the texts of both axes."""
    left, right = across.start, across.end
    parts = []
    for value, text in y_ticks:
        y = down(value)
        parts.append(
            f'<line class="grid" x1="{left:.1f}" x2="{right:.1f}" y1="{y:.1f}" '
            f'y2="{y:.1f}"/><text class="tick end" x="{left - 7:.1f}" '
            f'y="{y + 4:.1f}">{escape(text)}</text>'
        )
    return parts + floor(across, down.start, x_ticks)


def floor(
    across: Scale, base: float, x_ticks: Sequence[tuple[float, str]]
) -> list[str]:
    """The base line at height `base`, its ticks, and their texts where there's room."""
    left, right = across.start, across.end
    parts = [
        f'<line class="base" x1="{left:.1f}" x2="{right:.1f}" y1="{base:.1f}" '
        f'y2="{base:.1f}"/>'
    ]
    free = 0.0
    for value, text in x_ticks:
        x, half = across(value), GLYPH * len(text) / 2
        parts.append(
            f'<line class="base" x1="{x:.1f}" x2="{x:.1f}" y1="{base:.1f}" '
            f'y2="{base + 5:.1f}"/>'
        )
        if x - half >= free:
            free = x + half + 6
            parts.append(
                f'<text class="tick mid" x="{x:.1f}" y="{base + 18:.1f}">'
                f"{escape(text)}</text>"
            )
    return parts


def _curve(
    series: Series, across: Scale, down: Scale, x: Axis, y: Axis, detail: float
) -> str:
    """The path of one series, and its marks with their values on hovering."""
    width = {"faint": 2.0, "line": 3.0, "marks": 16.0}[series.style] / detail
    columns = across.pixels([p[0] for p in series.points])
    heights = down.pixels([p[1] for p in series.points])
    pixels = list(zip(columns, heights, strict=True))
    path = "M" + " ".join(f"{a:.1f} {b:.1f}" for a, b in scale.thin(pixels, width))
    if len(series.points) == 1:
        path += "h0.01"  # a round cap shows a single point
    look = f"{series.style} c{series.color % COLORS}"
    drawn = f'<path class="{look}" d="{path}"/>'
    if series.style != "marks":
        return drawn
    kept = set(scale.thin(pixels, width))
    marks = [
        f'<circle class="dot c{series.color % COLORS}" cx="{a:.1f}" cy="{b:.1f}" '
        f'r="3.2"><title>{escape(_hover(point, x, y))}</title></circle>'
        for point, (a, b) in zip(series.points, pixels, strict=True)
        if (a, b) in kept
    ]
    return drawn + "".join(marks)


def _hover(point: Point, x: Axis, y: Axis) -> str:
    at = units.duration(point[0]) if x.kind == "time" else units.si(point[0])
    return f"{x.name} {at}, {y.name or 'value'} {units.si(point[1], 4)}"


def _labels(
    series: Sequence[Series], across: Scale, down: Scale, right: float
) -> list[str]:
    """The labels of the curves right of the plot, at their ends, pushed apart."""
    named = [s for s in series if s.label and s.points]
    named.sort(key=lambda s: down(s.points[-1][1]))
    heights = [down(s.points[-1][1]) + 4 for s in named]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + LINE)
    floor = down.start
    for i in reversed(range(len(heights))):
        heights[i] = min(heights[i], floor)
        floor = heights[i] - LINE
    return [
        f'<text class="label c{s.color % COLORS}" x="{right + 8:.1f}" '
        f'y="{y:.1f}">{escape(s.label)}</text>'
        for s, y in zip(named, heights, strict=True)
    ]
