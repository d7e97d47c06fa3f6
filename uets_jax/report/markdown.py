"""The report in GitHub-flavoured Markdown: the same figures, curves as numbers."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uets_jax.report.blocks import (
    Block,
    Cell,
    Fold,
    Heading,
    Note,
    Page,
    Pair,
    Picture,
    Sample,
    Section,
    Table,
    clean,
)
from uets_jax.report.files import replace_text
from uets_jax.report.page import page
from uets_jax.report.run import Run, base_index, load_runs

SPECIAL = re.compile(r"([\\`*_\[\]|~#])")
HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def write_markdown(run_dirs: Sequence[Path], out: Path, base: str = "") -> Path:
    """Writes the Markdown report of the runs in `run_dirs`, compared; returns `out`.

    It needs no other file and no image. Equal input gives equal bytes.

    Args:
      base: directory or name of the run that the others are compared with; the first
        unless told.

    Raises:
      UserError: as `uets_jax.report.html.write_report`.
    """
    return replace_text(out, render_markdown(load_runs(run_dirs), base))


def render_markdown(runs: Sequence[Run], base: str = "") -> str:
    """The whole report; raises UserError for an unknown `base`."""
    return render_page(page(runs, base_index(runs, base)))


def render_page(content: Page) -> str:
    """Any page as Markdown."""
    stressed = [
        f"**{escape(piece)}**" if i % 2 else escape(piece)
        for i, piece in enumerate(content.lead)
    ]
    warnings = [f"> [!WARNING]\n> {escape(w)}" for w in content.warnings]
    tiles = [[Cell(t.name), Cell(t.value), Cell(t.beside)] for t in content.tiles]
    figures = Table("headline", ("", "", ""), tiles)
    pieces = [
        f"# {escape(content.title)}",
        "".join(stressed),
        *warnings,
        render(figures) if tiles else "",
        *map(_section, content.sections),
    ]
    return "\n\n".join(filter(None, pieces)) + "\n"


def escape(value: Any) -> str:
    """`value` as text on one line in which nothing is Markdown or HTML."""
    return SPECIAL.sub(r"\\\1", _html(value))


def _html(value: Any) -> str:
    return " ".join(clean(value).split("\n")).translate(HTML)


def render(block: Block) -> str:
    """Any block as Markdown."""
    match block:
        case Table():
            return _table(block)
        case Note(text):
            return escape(text)
        case Heading(text):
            return f"### {escape(text)}"
        case Sample(prompt, text):
            return fenced(prompt + text)
        case Picture(_, words, figures):
            shown = [fenced(words) if words else "", _all(figures)]
            return "\n\n".join(filter(None, shown))
        case Fold(title, blocks, _):
            head = f"<details>\n<summary>{_html(title)}</summary>"
            return f"{head}\n\n{_all(blocks)}\n\n</details>"
        case Pair(blocks):
            return _all(blocks)


def fenced(text: str) -> str:
    """A block of code whose fence is longer than any in the text."""
    text = clean(text)
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def code(value: Any) -> str:
    """`value` as code inside a table: on one line, its bars escaped."""
    line = " ".join(clean(value).split("\n")).replace("|", r"\|")
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    if longest:
        tick = "`" * (longest + 1)
        return f"{tick} {line} {tick}"
    return f"`{line}`" if line.strip() else escape(line)


def _section(part: Section) -> str:
    inside = _all(part.blocks)
    return f"## {escape(part.title)}\n\n{inside}" if inside else ""


def _all(blocks: Sequence[Block]) -> str:
    return "\n\n".join(filter(None, map(render, blocks)))


def _table(table: Table) -> str:
    """Figures to the right, words to the left."""
    rule = "---" if table.look in ("settings", "events", "changes") else "---:"
    lines = [
        [escape(cell) for cell in table.head],
        ["---", *[rule] * (len(table.head) - 1)],
        *([_cell(cell) for cell in row] for row in table.rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: Cell) -> str:
    text = code(cell.text) if cell.code else escape(cell.text)
    return f"{text} ({escape(cell.small)})" if cell.small else text
