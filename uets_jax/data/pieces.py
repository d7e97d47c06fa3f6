"""Cuts text so that no encoder ever sees a long run of it."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from uets_jax.errors import UserError

PIECE = 64 * 1024  # characters
GROUP = 1024 * 1024  # characters


def utf8(text: str) -> bytes:
    """The UTF-8 bytes of a text.

    Raises:
      UserError: the text holds half of a surrogate pair.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"text has a lone surrogate at character {error.start}; remove it"
        ) from None


def pieces(text: str, size: int = PIECE) -> Iterator[str]:
    """Parts of at most `size` characters that join to the whole.

    A part ends before white space where it can. Pre-tokenizers after GPT-2 never join
    a character to white space that follows it, so such a cut changes no token.

    Raises:
      UserError: the text holds half of a surrogate pair.
    """
    utf8(text)
    start = 0
    while len(text) - start > size:
        stop = start + size
        cut = _before_space(text, start, stop)
        yield text[start : cut or stop]
        start = cut or stop
    if start < len(text):
        yield text[start:]


def groups(
    items: Iterable[Any], size: int = GROUP, weigh: Callable[[Any], int] = len
) -> Iterator[list[Any]]:
    """Consecutive items, by the list, which is full when it weighs `size`."""
    group, length = [], 0
    for item in items:
        group.append(item)
        length += weigh(item)
        if length >= size:
            yield group
            group, length = [], 0
    if group:
        yield group


def _before_space(text: str, start: int, stop: int) -> int:
    """Where the last run of white space begins that has text before it; 0: nowhere."""
    at = max(text.rfind(space, start + 1, stop) for space in (" ", "\n"))
    while at > start and text[at - 1].isspace():
        at -= 1
    return at if at > start else 0
