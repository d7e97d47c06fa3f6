"""What a mixture does to clean text: shuffles, and copies with small edits.

Words are separated by ASCII white space. Equal draws give equal text.
"""

import itertools
import re
from collections.abc import Iterator
from typing import Literal

from uets_jax.data.draws import Draws

Edit = Literal["words", "passage", "characters"]
EDITS: tuple[Edit, ...] = ("words", "passage", "characters")
LETTERS = "etaoinshrdlucmfwypvbgkjqxz"
_SPACE = re.compile(r"([ \t\n\r\f\v]+)")


def shuffle_words(text: str, draws: Draws) -> str:
    """The words in random order; the white space stays where it is."""
    parts = _SPACE.split(text)
    words = parts[::2]
    parts[::2] = [words[i] for i in draws.order(len(words))]
    return "".join(parts)


def shuffle_characters(text: str, draws: Draws) -> str:
    """All characters in random order."""
    return "".join(text[i] for i in draws.order(len(text)))


def edit(text: str, kind: Edit, rate: float, draws: Draws) -> str:
    """A near-duplicate: about `rate` of the words or of the characters is changed.

    words:      single words, here and there, are replaced by another word of the text,
                left out, or followed by one.
    passage:    one run of words is replaced by other words of the text.
    characters: single characters are replaced, left out, or followed by a letter, as
                by a scanner or a hasty hand.

    One place is changed at least.
    """
    if kind == "characters":
        return "".join(_scattered(list(text), rate, LETTERS, "", draws))
    parts = _SPACE.split(text)
    words = parts[::2]
    if kind == "words":
        changed = _scattered(words, rate, words, " ", draws)
    else:
        changed = _passage(words, rate, draws)
    return "".join(_joined(changed, parts[1::2]))


def _joined(words: list[str], gaps: list[str]) -> Iterator[str]:
    """Words and the white space between them; a word left out takes its gap along."""
    for word, gap in itertools.zip_longest(words, gaps, fillvalue=""):
        yield word + gap if word else ""


def _count(size: int, rate: float) -> int:
    return min(size, max(1, round(size * rate)))


def _scattered(
    units: list[str], rate: float, others: "list[str] | str", gap: str, draws: Draws
) -> list[str]:
    """Some of the units replaced, emptied, or followed by another one."""
    changed = list(units)
    for i in draws.order(len(units))[: _count(len(units), rate)]:
        other = _another(units[i], others, draws)
        changed[i] = draws.pick((other, "", f"{units[i]}{gap}{other}"))
    return changed


def _passage(words: list[str], rate: float, draws: Draws) -> list[str]:
    count = _count(len(words), rate)
    start = draws.below(len(words) - count + 1)
    new = [_another(word, words, draws) for word in words[start : start + count]]
    return [*words[:start], *new, *words[start + count :]]


def _another(unit: str, others: "list[str] | str", draws: Draws) -> str:
    """A unit that differs, or a letter where the first few tries give the same."""
    for _ in range(8):
        other = draws.pick(others)
        if other != unit:
            return other
    return "x" if unit != "x" else "y"
