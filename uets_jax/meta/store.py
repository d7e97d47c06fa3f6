"""The books of meta-training: counters, clocks, lines, checkpoints."""

import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jaxtyping import Array

from uets_jax.errors import UserError
from uets_jax.meta.curve import picture
from uets_jax.meta.family import Tasks
from uets_jax.meta.settings import MetaConfig, fixed
from uets_jax.report.files import replace_text
from uets_jax.report.progress import Stream
from uets_jax.report.units import clock, si
from uets_jax.train.checkpoint import load_newest
from uets_jax.train.files import told
from uets_jax.train.saver import save

_RECENT = 50  # updates over which the speed is measured


@dataclasses.dataclass
class Books:
    """What is counted, over all parts of a run; stored with every checkpoint.

    check_seconds: of the last validation. start_scores: of the first theta on the
    seeds of validations, scales: of their families. best_mean: difference of the best
    theta to it, best_update: when that was.
    """

    updates: int = 0
    inner_steps: int = 0
    seconds: float = 0.0
    core_seconds: float = 0.0
    flops: float | None = 0.0
    check_seconds: float = 0.0
    best_mean: float = 0.0
    best_update: int = 0
    start_scores: list[list[float]] = dataclasses.field(default_factory=list)
    scales: list[float] = dataclasses.field(default_factory=list)
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def charge(self, flops: float | None, steps: int) -> None:
        """Adds a call's FLOPs, None if unknown, and inner steps."""
        known = self.flops is not None and flops is not None
        self.flops = self.flops + flops if known else None
        self.inner_steps += steps


class Store:
    """A run's folder and clocks; see `trainer` for its files."""

    def __init__(
        self,
        out: Path,
        config: MetaConfig,
        tasks: Tasks,
        stream: Stream | None,
        now: Callable[[], float],
        start: str = "",
    ) -> None:
        """start: digest of the first theta and of what of it is learned."""
        self.out, self.config, self.now = out, config, now
        self._stream = sys.stderr if stream is None else stream
        self._settings = {
            **json.loads(json.dumps(fixed(config))),
            "train": [f.name for f in tasks.train],
            "valid": [f.name for f in tasks.valid],
            "start": start,
        }
        self._wall, self._core, self._saved = now(), time.process_time(), now()
        self._times: list[float] = []
        self._lines: list[dict[str, Any]] = []

    def resume(self, first: Any) -> tuple[Any, Books]:
        """The newest intact checkpoint, or the given state and empty books.

        Raises:
          UserError: the run in this folder has other settings; names the first.
        """
        like = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), first
        )
        found, damaged = load_newest(self._root, lambda record: like, self._same)
        for text in damaged:
            self.note(f"damaged, passed over: {text}")
        if found is None:
            self._cut(-1)
            return first, Books()
        state, record = found
        books = Books(**record["books"])
        self._cut(books.updates)
        self.note(f"goes on after update {books.updates}")
        return state, books

    def fraction(self, books: Books) -> float:
        """How much of the budget is used; 1 where it ends.

        Of the minutes, thrice the last validation's time is kept for the end.
        """
        parts = [0.0]
        if self.config.updates:
            parts.append(books.updates / self.config.updates)
        if self.config.minutes:
            spent = self._seconds(books) + 3 * books.check_seconds
            parts.append(spent / (60 * self.config.minutes))
        return min(1.0, max(parts))

    def clock(self, books: Books) -> None:
        """Brings the seconds in the books up to now."""
        books.seconds = self._seconds(books)
        books.core_seconds += time.process_time() - self._core
        self._wall, self._core = self.now(), time.process_time()

    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return self.now() - self._saved >= 60 * self.config.checkpoint_minutes

    def save(self, state: Any, books: Books) -> None:
        """Writes the checkpoint, and the lines that belong to it."""
        self.clock(books)
        self._flush()
        record = {"step": books.updates, "books": dataclasses.asdict(books)}
        save(self._root, state, {**record, "settings": self._settings})
        self._saved = self.now()

    def line(
        self, books: Books, name: str, metrics: dict[str, Array], norm: Array
    ) -> None:
        """Records an update; now and then prints the mean value and the time left."""
        self._times = [*self._times[-_RECENT:], self.now()]
        plain = {k: float(v) for k, v in {**metrics, "norm": norm}.items()}
        sound = {k: v if math.isfinite(v) else None for k, v in plain.items()}
        row = {"update": books.updates, "family": name, **sound}
        row |= {"seconds": round(self._seconds(books), 3), "flops": books.flops}
        self._lines.append({**row, "inner_steps": books.inner_steps})
        every, ahead = self.config.log_every, self.config.updates or "-"
        if books.updates % every and books.updates != self.config.updates:
            return
        values = [r["value"] for r in self._lines if r.get("value") is not None]
        told = f"value {sum(values) / len(values):+.3f}  " if values else ""
        self._flush()
        self._draw()
        self.note(
            f"update {books.updates}/{ahead}  {told}"
            f"{si(books.inner_steps)} inner steps  eta {self._left(books)}"
        )

    def told(self, books: Books) -> None:
        """Records a validation and prints it."""
        row = books.history[-1]
        self._lines.append({"event": "validation", **row})
        self._flush()
        self._draw()
        parts = [
            f"{label} {row[label]['mean']:+.4f} +- {row[label]['error']:.4f}"
            for label in ("theta", "mean")
        ]
        best = f"best {books.best_mean:+.4f} at {books.best_update}"
        self.note(f"validation at {row['update']}: {'  '.join(parts)}  {best}")

    def note(self, text: str) -> None:
        """Prints a line; a stream that is gone ends nothing."""
        try:
            self._stream.write(text + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            pass

    @property
    def _root(self) -> Path:
        return self.out / "checkpoints"

    def _seconds(self, books: Books) -> float:
        return books.seconds + self.now() - self._wall

    def _left(self, books: Books) -> str:
        spent, used = self.now() - self._times[0], len(self._times) - 1
        guesses = []
        if self.config.updates and used:
            rest = self.config.updates - books.updates
            guesses.append(rest * spent / used)
        if self.config.minutes:
            guesses.append(60 * self.config.minutes - self._seconds(books))
        return clock(max(0.0, min(guesses))) if guesses else "-"

    def _same(self, record: dict[str, Any]) -> None:
        stored = record.get("settings", {})
        for name, value in self._settings.items():
            if stored.get(name) != value:
                raise UserError(
                    f"{self.out}: {name} was {stored.get(name)} in the run that is "
                    f"there and is {value} now; use the same or another folder"
                )

    def _flush(self) -> None:
        lines, self._lines = self._lines, []
        with told(self.out), (self.out / "meta.jsonl").open("a") as file:
            for row in lines:
                file.write(json.dumps(row, allow_nan=False) + "\n")

    def _draw(self) -> None:
        rows = (self.out / "meta.jsonl").read_text("utf-8").splitlines()
        replace_text(self.out / "curve.svg", picture([*map(json.loads, rows)]))

    def _cut(self, update: int) -> None:
        """Drops lines that a stopped run wrote after its checkpoint."""
        path = self.out / "meta.jsonl"
        if path.exists():
            rows = path.read_text("utf-8").splitlines()
            kept = [r for r in rows if _update(r) <= update]
            path.write_text("".join(r + "\n" for r in kept), "utf-8")


def _update(row: str) -> float:
    """Its update; infinite for a line that was cut off."""
    try:
        return float(json.loads(row)["update"])
    except (ValueError, KeyError, TypeError):
        return math.inf
