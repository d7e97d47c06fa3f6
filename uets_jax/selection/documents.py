"""Texts of any length as flat arrays, a bounded group of them at a time."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt32

TEXTS = 256  # at most in a group
TOKENS = 1 << 20  # about the most in a group, or one text if it is longer


class Flat(NamedTuple):
    """Texts one after the other: each token's id, text and place in that text."""

    ids: UInt32[np.ndarray, " t"]
    text: Int[np.ndarray, " t"]
    place: Int[np.ndarray, " t"]
    lengths: Int[np.ndarray, " n"]


def groups(documents: Iterable[Sequence[int] | np.ndarray]) -> Iterator[Flat]:
    """The documents in order; only one group is in memory."""
    group, tokens = [], 0
    for one in documents:
        group.append(np.asarray(one).astype(np.uint32))
        tokens += len(group[-1])
        if len(group) == TEXTS or tokens >= TOKENS:
            yield flatten(group)
            group, tokens = [], 0
    if group:
        yield flatten(group)


def flatten(group: Sequence[np.ndarray]) -> Flat:
    """Some texts in one array."""
    lengths = np.array([len(one) for one in group], np.int64)
    ids = np.concatenate([np.zeros(0, np.uint32), *group]).astype(np.uint32)
    text = np.repeat(np.arange(len(group)), lengths)
    return Flat(ids, text, within(lengths), lengths)


def within(lengths: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... anew for each text."""
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def means(values: np.ndarray, text: np.ndarray, texts: int) -> np.ndarray:
    """float32 [texts]: the mean of the values of each text, 0 where it has none."""
    total = np.bincount(text, values, texts)
    return (total / np.maximum(np.bincount(text, minlength=texts), 1)).astype(
        np.float32
    )
