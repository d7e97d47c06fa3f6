"""The pieces of a report as HTML that nothing can break out of."""

from html import escape as _html_escape
from typing import Any

from uets_jax.report.blocks import (
    Block,
    Cell,
    Fold,
    Heading,
    Note,
    Pair,
    Picture,
    Sample,
    Section,
    Table,
    Tile,
    clean,
)
from uets_jax.report.style import COLORS


def escape(value: Any) -> str:
    """`value` as HTML text or attribute: clean, and escaped."""
    return _html_escape(clean(value))


def render(block: Block) -> str:
    """Any block as HTML."""
    match block:
        case Table():
            return _table(block)
        case Note(text):
            return f'<p class="note">{escape(text)}</p>'
        case Heading(text):
            return f"<h3>{escape(text)}</h3>"
        case Sample(prompt, text):
            begun = f"<b>{escape(prompt)}</b>" if prompt else ""
            return f'<pre class="sample">{begun}{escape(text)}</pre>'
        case Picture(draw, _, figures):
            folded = Fold("The same in figures", figures, printed=False)
            return draw() + (f"\n{render(folded)}" if figures else "")
        case Fold(title, blocks, printed):
            look = "" if printed else ' class="unprinted"'
            head = f"<details{look}><summary>{escape(title)}</summary>"
            return f"{head}\n{_all(blocks)}\n</details>"
        case Pair(blocks):
            inside = "".join(f"<div>{render(b)}</div>" for b in blocks)
            return f'<div class="pair">{inside}</div>'


def section(part: Section) -> str:
    """A section with its heading; nothing where it has no blocks."""
    inside = _all(part.blocks)
    head = f"<section>\n<h2>{escape(part.title)}</h2>"
    return f"{head}\n{inside}\n</section>" if inside else ""


def tile(one: Tile) -> str:
    """A headline figure between its name and its small print."""
    name, value, beside = map(escape, one)
    return f"<div><span>{name}</span><b>{value}</b><small>{beside}</small></div>\n"


def lead(pieces: Any) -> str:
    """A sentence of which every second piece is stressed."""
    return "".join(
        f"<strong>{escape(piece)}</strong>" if i % 2 else escape(piece)
        for i, piece in enumerate(pieces)
    )


def _all(blocks: Any) -> str:
    return "\n".join(filter(None, map(render, blocks)))


def _table(table: Table) -> str:
    """A table that scrolls sideways, with the keyboard too."""
    name = escape(table.name)
    figures = table.look in ("shares", "changes")
    look = f"figures {table.look}" if figures else table.look
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.head)
    body = "\n".join(
        f'<tr><th scope="row">{_cell(row[0])}</th>'
        + "".join(f"<td>{_cell(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in table.rows
    )
    return (
        f'<div class="scroll" role="group" tabindex="0" aria-label="{name}">'
        f'<table class="{look}">\n<thead><tr>{top}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    if cell.code:
        text = f"<code>{text}</code>"
    look = "" if cell.color is None else f" c{cell.color % COLORS}"
    if look and cell.share is None:
        text = f'<span class="swatch{look}"></span>{text}'
    if cell.small:
        text += f"<small>{escape(cell.small)}</small>"
    if cell.share is not None:
        width = 100 * min(1.0, max(0.0, cell.share))
        bar = f'<i style="width:{width:.1f}%"></i>'
        text += f'<span class="bar{look}">{bar}</span>'
    return text
