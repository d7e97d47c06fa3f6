"""Documents that are handed out whole, one after the other, cut into pieces."""

import io
import math
from collections.abc import Iterator
from typing import NamedTuple

from uets_jax.data.files import sections
from uets_jax.errors import UserError

SHORTEST = 200  # bytes: what is shorter is no piece


class Document(NamedTuple):
    """A labelled text from a collection (`source`) and a book or the like (`work`)."""

    id: str
    domain: str
    text: str
    source: str = ""
    work: str = ""


class Piece(NamedTuple):
    """Part of a document; `origin` is its id, with `#n` where there are others."""

    text: str
    domain: str
    origin: str

    @property
    def size(self) -> int:
        """UTF-8 bytes."""
        return len(self.text.encode())


class Supply:
    """Documents that are handed out whole, one after the other, as pieces."""

    def __init__(self, name: str, documents: list[Document], piece: int) -> None:
        self._name, self._size = name, piece
        self._documents = iter(documents)

    def pieces(self) -> Iterator[Piece]:
        """The pieces of the documents from the next one on."""
        for document in self._documents:
            yield from pieces(document, self._size)

    def take(self, budget: float, what: str) -> Iterator[Piece]:
        """Pieces of `budget` bytes together, to the nearest piece."""
        left = budget
        for piece in self.pieces() if left > 0 else ():
            if left < piece.size / 2:
                return
            yield piece
            left -= piece.size
            if left <= 0:
                return
        if left > self._size:
            raise self.short(left, budget, what)

    def short(self, left: float, budget: float, what: str) -> UserError:
        """The error that the text has run out."""
        return UserError(
            f"{self._name}: {math.ceil(left):,} bytes short of the "
            f"{math.ceil(budget):,} for {what}; give more of such text or a smaller "
            "pool (--bytes)"
        )


def pieces(document: Document, size: int) -> list[Piece]:
    """The document cut into pieces of at most `size` bytes, without the shortest."""
    cut = [raw.decode().strip(" \t\r\n") for raw in _sections(document.text, size)]
    name = f"{document.id}#{{}}" if len(cut) > 1 else document.id
    return [
        Piece(text, document.domain, name.format(number))
        for number, text in enumerate(cut)
        if len(text.encode()) >= SHORTEST
    ]


def _sections(text: str, size: int) -> Iterator[bytes]:
    return sections(io.BytesIO(text.encode()), size)
