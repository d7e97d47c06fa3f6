"""What a report consists of before it is written as HTML or as Markdown."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

DASH = "\N{EN DASH}"  # in place of a value that isn't known
TIMES = "\N{MULTIPLICATION SIGN}"


class Cell(NamedTuple):
    """A figure or a word, and what stands small beside it."""

    text: str
    small: str = ""
    code: bool = False
    color: int | None = None  # number of the run that it names or belongs to
    share: float | None = None  # drawn as a bar


class Table(NamedTuple):
    """Rows of which the first cell is the head."""

    name: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    look: Literal["figures", "shares", "settings", "events", "changes"] = "figures"


class Note(NamedTuple):
    """A muted sentence."""

    text: str


class Heading(NamedTuple):
    """A title inside a section."""

    text: str


class Sample(NamedTuple):
    """A generated text behind its prompt."""

    prompt: str
    text: str


class Picture(NamedTuple):
    """Charts: drawn for HTML, for Markdown a few words; `figures` under both."""

    draw: Callable[[], str]
    words: str = ""
    figures: Sequence["Block"] = ()


class Fold(NamedTuple):
    """Content that HTML shows on demand; printed where `printed`."""

    title: str
    blocks: Sequence["Block"]
    printed: bool = True


class Pair(NamedTuple):
    """Blocks side by side where there is room."""

    blocks: Sequence["Block"]


Block: TypeAlias = Table | Note | Heading | Sample | Picture | Fold | Pair


class Section(NamedTuple):
    """A titled part of a page; left out where it has no blocks."""

    title: str
    blocks: Sequence[Block]


class Tile(NamedTuple):
    """A headline figure, its name above, the small print below."""

    name: str
    value: str
    beside: str = ""


class Page(NamedTuple):
    """A whole report; of `lead` every second piece is stressed."""

    title: str
    lead: Sequence[str]
    warnings: Sequence[str]
    tiles: Sequence[Tile]
    sections: Sequence[Section]


def clean(value: Any) -> str:
    """`value` as text that can be written as UTF-8.

    Control characters and lone surrogates, which generated text can hold, become
    U+FFFD.
    """
    text = str(value).replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c if _allowed(c) else "\ufffd" for c in text)


def _allowed(char: str) -> bool:
    code = ord(char)
    if code < 32:
        return char in "\n\t"
    return not (0x7F <= code <= 0x9F or 0xD800 <= code <= 0xDFFF)


def ratio(value: float | None, base: float | None) -> str:
    """`base` over `value`, as costs are compared: above 1 is better; "" if unknown."""
    return f"{base / value:.3g}{TIMES}" if value and base else ""


def cell(value: float | None, form: Callable[[float], str], small: str = "") -> Cell:
    """The figure as `form` writes it, or a dash."""
    return Cell(DASH) if value is None else Cell(form(value), small)


def filled(table: Table) -> Table:
    """The table without columns that hold nothing but dashes."""
    kept = [
        i
        for i in range(len(table.head))
        if i == 0 or any(row[i].text not in ("", DASH) for row in table.rows)
    ]
    pick = lambda row: [row[i] for i in kept]
    return table._replace(head=pick(table.head), rows=[pick(r) for r in table.rows])
