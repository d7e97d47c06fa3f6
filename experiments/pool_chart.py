"""Bytes of each kind of text in a pool, as bars."""

from collections.abc import Mapping

from uets_jax.report.markup import escape
from uets_jax.report.style import LIGHT
from uets_jax.report.units import si

WIDTH, ROW, LEFT, RIGHT = 760, 34, 150, 240
NAMES = {
    "unique": ("unique target text", 0),
    "near": ("near text", 2),
    "duplicate": ("duplicates", 4),
    "word_shuffled": ("shuffled words", 1),
    "char_shuffled": ("shuffled characters", 1),
    "boilerplate": ("boilerplate", 1),
}


def chart(kinds: Mapping[str, Mapping[str, int]]) -> str:
    """An SVG file: a bar for each kind, with its bytes, share and documents."""
    total = sum(kind["bytes"] for kind in kinds.values())
    most = max(kind["bytes"] for kind in kinds.values())
    room = WIDTH - LEFT - RIGHT
    rows = []
    for place, (kind, (name, color)) in enumerate(NAMES.items()):
        size, documents = kinds[kind]["bytes"], kinds[kind]["documents"]
        top, width = 40 + place * ROW, room * size / most
        said = f"{si(size)}B, {size / total:.1%}, {documents:,} documents"
        rows.append(
            f'<text x="{LEFT - 10}" y="{top + 16}" text-anchor="end">{escape(name)}'
            f'</text><rect x="{LEFT}" y="{top}" width="{width:.1f}" height="23" rx="2" '
            f'fill="{LIGHT[color]}"/><text x="{LEFT + width + 8:.1f}" y="{top + 16}">'
            f"{said}</text>"
        )
    height = 40 + len(NAMES) * ROW + 6
    title = f"Composition of the pool: {si(total)}B"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" aria-label="{title}">\n'
        '<rect width="100%" height="100%" fill="#fff"/>\n'
        '<g font-family="system-ui, Helvetica, Arial, sans-serif" font-size="13" '
        'fill="#1c2126">\n'
        f'<text x="{LEFT}" y="22" font-weight="600">{title}</text>\n'
        + "\n".join(rows)
        + "\n</g>\n</svg>\n"
    )
