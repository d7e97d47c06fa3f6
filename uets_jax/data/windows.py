"""Token ids as batches of windows: random access, deterministic, resumable.

A split of T tokens has ceil((T - 1) / L) windows. Window i reads tokens
[i L, i L + L) and predicts [i L + 1, i L + L + 1), so an epoch has every token but the
first as a target exactly once. The last window is filled up with the separator as
input and `IGNORED` as target.

The separator before a document belongs to that document's segment: segments rise AT
the separator, and count from 0 in every row.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from uets_jax.errors import UserError
from uets_jax.types import IGNORED, Batch


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
    """Shuffled training batches; `windows[step]` is this process's share of a batch.

    tokens: ids of the split, one dimension; may be a memmap.
    length: L, tokens per window.
    batch:  B, windows per step over all processes.
    piece:  consecutive windows that stay together; pieces are shuffled.

    Every epoch is a fresh permutation that depends on (seed, epoch) alone; batches
    straddle epochs, so that no window is left out. The last piece of a split may begin
    before the end of the one before it.
    """

    tokens: np.ndarray
    eot: int
    length: int
    batch: int
    seed: int
    piece: int = 1
    process_index: int = 0
    process_count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.process_index < self.process_count:
            raise UserError(
                f"process {self.process_index} of {self.process_count} does not exist"
            )
        if self.batch % (self.process_count * self.piece):
            raise UserError(
                f"train.batch: {self.batch} can't be shared by {self.process_count} "
                f"processes in pieces of {self.piece}; give a multiple"
            )
        if self.count < self.batch:
            raise UserError(
                f"the training split has {self.count} windows of {self.length} tokens, "
                f"fewer than train.batch = {self.batch}; give more text, shorter "
                "windows or a smaller batch"
            )

    @property
    def count(self) -> int:
        """Windows in the split, the partial one included."""
        return window_count(len(self.tokens), self.length)

    def order(self, step: int) -> np.ndarray:
        """int64 [B]: the ids of a step's windows, over all processes."""
        pieces, size = self.batch // self.piece, -(-self.count // self.piece)
        epoch, place = np.divmod(np.arange(step * pieces, (step + 1) * pieces), size)
        shuffled = np.empty(pieces, np.int64)
        for one in np.unique(epoch):
            here = epoch == one
            shuffled[here] = _permutation(self.seed, int(one), size)[place[here]]
        first = np.minimum(shuffled * self.piece, self.count - self.piece)
        return (first[:, None] + np.arange(self.piece)).ravel()

    def __getitem__(self, step: int) -> Batch:
        """int32 arrays [B / processes, L]."""
        share = self.batch // self.process_count
        ids = self.order(step)[self.process_index * share :][:share]
        return cut(self.tokens, self.eot, self.length, ids)


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """Sorts raw random bits: unlike `Generator.permutation`, these never change."""
    bits = np.random.Philox(key=np.array([seed, epoch], np.uint64))
    return np.argsort(bits.random_raw(count), kind="stable")


def window_count(tokens: int, length: int) -> int:
    """Windows of `length` targets that hold all targets of `tokens` tokens."""
    return max(0, -(-(tokens - 1) // length))


def cut(tokens: np.ndarray, eot: int, length: int, ids: np.ndarray) -> Batch:
    """The windows with the given numbers; one beyond the end is all padding."""
    rows = np.full((len(ids), length + 1), IGNORED, np.int32)
    for row, i in zip(rows, ids.tolist(), strict=True):
        part = tokens[i * length : i * length + length + 1]
        row[: len(part)] = part
    inputs = np.where(rows == IGNORED, eot, rows)[:, :-1]
    starts = np.cumsum(inputs == eot, axis=1, dtype=np.int32)
    targets = np.ascontiguousarray(rows[:, 1:])
    fields: Any = (inputs, targets, ids.astype(np.int32), starts - starts[:, :1])
    return Batch(*fields)


def stream(windows: Windows, start: int, stop: int) -> Iterator[Batch]:
    """`windows[step]` for steps in [start, stop), read ahead where there is grain."""
    try:
        import grain
    except ImportError:
        return map(windows.__getitem__, range(start, stop))
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    steps = grain.MapDataset.range(start, stop)
    return iter(steps.map(windows.__getitem__).to_iter_dataset(options))


def sequential(
    tokens: np.ndarray, eot: int, length: int, batch: int, max_tokens: int = 0
) -> Iterator[Batch]:
    """Batches for evaluation: all windows in order, every target exactly once.

    Only the first `max_tokens` targets are read; 0: all. The last batch is filled up
    with rows of padding, whose ids are -1.
    """
    tokens = tokens[: max_tokens + 1] if max_tokens else tokens
    count = window_count(len(tokens), length)
    for start in range(0, count, batch):
        ids = np.arange(start, start + batch)
        part = cut(tokens, eot, length, ids)
        yield part._replace(ids=np.where(ids < count, part.ids, -1).astype(np.int32))


def chain_ids(previous: str, ids: Sequence[int] | np.ndarray) -> str:
    """sha256(previous + ids as little-endian int64), in hex; the first link is ""."""
    raw = np.asarray(ids, "<i8").tobytes()
    return hashlib.sha256(previous.encode() + raw).hexdigest()
