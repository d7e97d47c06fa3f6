"""Texts compared by hashes of their word n-grams: what two splits share.

A word is a run of ASCII letters, digits and bytes beyond ASCII, in lower case; all else
only separates words. So white space, punctuation and capitals make no difference, and
no table of Unicode is asked, which would change with the version of Python.
"""

from collections.abc import Sequence

import numpy as np

GRAM = 13  # words
_MIX = np.uint64(0x9E3779B97F4A7C15)
_INVERSE = np.uint64(pow(int(_MIX), -1, 1 << 64))
_FINAL = np.uint64(0xBF58476D1CE4E5B9)


def _byte_tables() -> tuple[np.ndarray, np.ndarray]:
    """Whether each byte belongs to a word, and its random value (of the lower case)."""
    lower = np.frombuffer(bytes(range(256)).lower(), np.uint8)
    inside = np.array([b >= 128 or chr(b).isalnum() for b in range(256)])
    values = np.random.Philox(key=np.array([13, 64], np.uint64)).random_raw(256)
    return inside, values[lower]


_INSIDE, _VALUES = _byte_tables()


def _powers(base: np.uint64, count: int) -> np.ndarray:
    """uint64 [count]: base^0, base^1, ... modulo 2^64."""
    steps = np.full(count, base, np.uint64)
    steps[:1] = 1
    return np.multiply.accumulate(steps)


def word_hashes(text: str) -> np.ndarray:
    """uint64 [words]: a polynomial hash of each word."""
    raw = np.frombuffer(text.encode(), np.uint8)
    inside = np.concatenate([[False], _INSIDE[raw], [False]])
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    start, stop = edges[::2], edges[1::2]
    terms = _VALUES[raw] * _powers(_MIX, len(raw))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
    found = (sums[stop] - sums[start]) * _powers(_INVERSE, len(raw) + 1)[start]
    return (found ^ (found >> np.uint64(31))) * _FINAL


def gram_hashes(text: str, length: int = GRAM) -> np.ndarray:
    """uint64 [grams]: a hash of every run of `length` words.

    A text of fewer words is one gram; a text without words has none.
    """
    words = word_hashes(text)
    length = min(length, len(words))
    count = len(words) - length + 1 if length else 0
    found = np.zeros(count, np.uint64)
    for place, factor in enumerate(_powers(_MIX, length)):
        found += words[place : place + count] * factor
    return found


def normalised_hash(text: str) -> int:
    """A hash of all words in their order, 64 bits."""
    words = word_hashes(text)
    terms = (words + np.uint64(1)) * _powers(_MIX, len(words))
    return int(np.sum(terms, dtype=np.uint64))


class Held:
    """The n-grams of held-out texts, and how much of another text is among them."""

    def __init__(self, texts: Sequence[str], length: int = GRAM) -> None:
        self._length = length
        self._whole = {normalised_hash(text) for text in texts}
        empty = np.zeros(0, np.uint64)
        found = [gram_hashes(text, length) for text in texts]
        self._grams = np.unique(np.concatenate([empty, *found]))

    def equals(self, text: str) -> bool:
        """Whether the text has the very words of a held-out one."""
        return normalised_hash(text) in self._whole

    def share(self, text: str) -> float:
        """The share of the text's n-grams that a held-out text has, too."""
        grams = gram_hashes(text, self._length)
        if not len(grams) or not len(self._grams):
            return 0.0
        place = np.searchsorted(self._grams, grams) % len(self._grams)
        return float(np.mean(self._grams[place] == grams))

    def seen(self, texts: Sequence[str]) -> float:
        """The share of the held-out n-grams that any of the texts has."""
        found = np.zeros(len(self._grams), bool)
        for text in texts:
            grams = gram_hashes(text, self._length)
            place = np.searchsorted(self._grams, grams) % max(len(self._grams), 1)
            found[place[self._grams[place] == grams]] = True
        return float(np.mean(found)) if len(found) else 0.0


def repeated(texts: Sequence[str], length: int = GRAM) -> np.ndarray:
    """float64 [texts]: the share of each text's n-grams that an earlier text has."""
    first, owner = _owners([gram_hashes(text, length) for text in texts])
    again = np.bincount(owner[first < owner], minlength=len(texts))
    return again / np.maximum(np.bincount(owner, minlength=len(texts)), 1)


def _owners(grams: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """int32 [all grams], sorted by gram: the first text that has it, and its own text.

    Empties the list, which is large.
    """
    sizes = [len(found) for found in grams]
    flat = np.concatenate([np.zeros(0, np.uint64), *grams])
    grams.clear()
    order = np.argsort(flat, kind="stable")
    flat = flat[order]
    new = np.ones(len(flat), bool)
    np.not_equal(flat[1:], flat[:-1], out=new[1:])
    owner = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)[order]
    return owner[new][np.cumsum(new, dtype=np.int32) - 1], owner


def linked(texts: Sequence[str], limit: float, length: int = GRAM) -> list[int]:
    """The group of each text, named after its first member.

    Two texts are in one group when the later one shares more than `limit` of the
    shorter one's n-grams with the first text that has them, directly or by others.
    """
    grams = [np.unique(gram_hashes(text, length)) for text in texts]
    sizes = [len(found) for found in grams]
    first, owner = _owners(grams)
    pairs = np.stack([first, owner])[:, first < owner]
    group = list(range(len(texts)))
    for (a, b), count in zip(*_counted(pairs), strict=True):
        if count > limit * min(sizes[a], sizes[b]):
            low, high = sorted((group[a], group[b]))
            group = [low if g == high else g for g in group]
    return group


def _counted(pairs: np.ndarray) -> tuple[list[list[int]], list[int]]:
    columns, counts = np.unique(pairs, axis=1, return_counts=True)
    return columns.T.tolist(), counts.tolist()
