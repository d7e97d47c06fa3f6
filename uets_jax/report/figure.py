"""Charts as an SVG file of their own, with the style that a page would give them."""

from collections.abc import Sequence

from uets_jax.report.markup import escape
from uets_jax.report.style import LIGHT

WIDTH, HEIGHT, HEAD, GAP = 460, 340, 34, 30
STYLE = (
    "text{font:12px system-ui,Helvetica,Arial,sans-serif;fill:#444c54}"
    ".end{text-anchor:end}.mid{text-anchor:middle}"
    ".label{font-weight:600;fill:var(--c)}.title{font-size:14px;font-weight:600}"
    ".grid{stroke:#e1e5e9}.base{stroke:#5d6670}"
    "path{fill:none;stroke:var(--c);stroke-linejoin:round}"
    ".line{stroke-width:2}.marks{stroke-width:1.2;stroke-dasharray:3 4}"
    ".dot{fill:#fff;stroke:var(--c);stroke-width:1.8}"
    + "".join(f".c{i}{{--c:{color}}}" for i, color in enumerate(LIGHT))
)


def joined(panels: Sequence[tuple[str, str]]) -> str:
    """Charts side by side in one SVG file that needs nothing else."""
    size = WIDTH if len(panels) > 1 else WIDTH + 160
    width = len(panels) * (size + GAP) - GAP + 2 * GAP
    parts = []
    for place, (title, svg) in enumerate(panels):
        left = GAP + place * (size + GAP)
        parts.append(
            f'<text class="title" x="{left}" y="20">{escape(title)}</text>'
            f'<g transform="translate({left} {HEAD})">'
            + svg.replace("<svg ", f'<svg width="{size}" height="{HEIGHT}" ', 1)
            + "</g>"
        )
    height = HEAD + HEIGHT + 8
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}">\n<style>{STYLE}</style>\n'
        '<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(parts)
    ) + "\n</svg>\n"
