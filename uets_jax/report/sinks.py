"""Where a tracker's records go: any sink, and TensorBoard files."""

import math
import numbers
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol


class Sink(Protocol):
    """Takes records one by one; runs in a thread of its own and may raise."""

    def write(self, record: dict[str, Any]) -> None:
        """Takes one record."""

    def close(self) -> None:
        """Hands over what it still holds."""


def finite(record: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The finite numbers of a record but its step."""
    for key, value in record.items():
        plain = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if plain and key != "step" and math.isfinite(value):
            yield key, float(value)


def event_text(record: dict[str, Any]) -> str:
    """`growth: depth 2 -> 4`, or nothing where the record is no event."""
    told = [str(record[key]) for key in ("event", "detail") if record.get(key)]
    return ": ".join(told) if record.get("event") else ""


def one_line(error: BaseException) -> str:
    """The error's type and the beginning of its text."""
    return textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder="…")


class TensorBoard:
    """Scalars and texts in `folder/tensorboard`; a resumed run goes on in there.

    Steps that an earlier part of the run had written beyond the first record's are
    purged, as the metrics file is cut back.
    """

    def __init__(self, folder: Path):
        self._folder, self._writer = folder / "tensorboard", None

    def write(self, record: dict[str, Any]) -> None:
        """Adds the record at its step."""
        step = int(record["step"])
        if self._writer is None:
            self._writer = self._open(step + bool(record.get("event")))
        for key, value in finite(record):
            self._writer.add_scalar(key, value, step)
        if text := event_text(record):
            self._writer.add_text("events", text, step)

    def close(self) -> None:
        """Flushes and closes the file."""
        if self._writer is not None:
            self._writer.close()

    def _open(self, first: int) -> Any:
        from tensorboardX import (  # pyright: ignore[reportMissingImports]
            SummaryWriter,
        )

        files = len(list(self._folder.glob("events.*")))
        return SummaryWriter(
            str(self._folder),
            purge_step=first if files else None,
            flush_secs=10,
            filename_suffix=f".{files:04d}",  # or two of one second are one file
        )
