"""The few pieces of HTML that everything else is made of."""

from collections.abc import Iterable, Sequence
from html import escape as _html_escape
from typing import Any

DASH = "\N{EN DASH}"  # in place of a value that isn't known
TIMES = "\N{MULTIPLICATION SIGN}"


def escape(value: Any) -> str:
    """`value` as HTML text or attribute: escaped, and writable as UTF-8.

    Control characters and lone surrogates, which generated text can hold, become
    U+FFFD.
    """
    text = str(value).replace("\r\n", "\n").replace("\r", "\n")
    return _html_escape("".join(c if _allowed(c) else "\ufffd" for c in text))


def _allowed(char: str) -> bool:
    code = ord(char)
    if code < 32:
        return char in "\n\t"
    return not (0x7F <= code <= 0x9F or 0xD800 <= code <= 0xDFFF)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], style: str = "") -> str:
    """A table that scrolls sideways; cells are HTML, the first one heads its row."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "\n".join(
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(f"<td>{cell}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table class="{style}">\n<thead><tr>{top}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def section(title: str, *parts: str) -> str:
    """A section with a heading; nothing where all parts are empty."""
    inside = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{title}</h2>\n{inside}\n</section>" if inside else ""


def details(summary: str, inside: str) -> str:
    """Folded content."""
    return f"<details><summary>{summary}</summary>\n{inside}\n</details>"


def note(sentence: str) -> str:
    """A muted paragraph of plain text."""
    return f'<p class="note">{escape(sentence)}</p>'


def code(value: Any) -> str:
    """A hash, a path, a setting."""
    return f"<code>{escape(value)}</code>"
