"""Random draws that are the same on every machine and in every version of NumPy."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Draws:
    """A stream of raw Philox bits that depends on its labels alone.

    NumPy may change the methods of `Generator` between versions; raw bits stay.
    """

    def __init__(self, *labels: object) -> None:
        name = "\0".join(map(str, labels)).encode()
        key = np.frombuffer(hashlib.sha256(name).digest()[:16], "<u8")
        self._bits = np.random.Philox(key=key.astype(np.uint64))

    def order(self, count: int) -> list[int]:
        """A permutation of range(count)."""
        return np.argsort(self._bits.random_raw(count), kind="stable").tolist()

    def below(self, bound: int) -> int:
        """An integer from 0 to bound - 1; the bias is below bound / 2^64."""
        return int(self._bits.random_raw()) % bound

    def fraction(self) -> float:
        """A number from [0, 1), a multiple of 2^-53."""
        return (int(self._bits.random_raw()) >> 11) * 2.0**-53

    def between(self, low: float, high: float) -> float:
        """A number from [low, high)."""
        return low + (high - low) * self.fraction()

    def pick(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.below(len(items))]
