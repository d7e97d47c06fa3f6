"""Writing checkpoints in the background, one at a time, whole or not at all."""

import concurrent.futures
import contextlib
import errno
import functools
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxtyping import PyTree

from uets_jax.errors import UserError
from uets_jax.train.checkpoint import TEMPORARY, checksums, shapes, steps, sweep
from uets_jax.train.processes import barrier, is_main


class Saver:
    """Saves states while training goes on; a context manager that ends with `wait`.

    `save` returns once the arrays are copied off the devices. What goes wrong behind
    it is raised by the next call of any method, and `check` is cheap enough for every
    step. A checkpoint appears under its name only when complete; then all but the
    newest `keep` are dropped.

    Raises:
      UserError: if the disk is full or not writable; earlier checkpoints stay.
    """

    def __init__(self, root: Path, keep: int = 2) -> None:
        self.root, self.keep = root, keep
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._pending: concurrent.futures.Future[None] | None = None
        _silence()

    def save(self, state: PyTree, record: dict[str, Any]) -> Path:
        """Begins to write `root/<record["step"]>` from all processes."""
        from orbax.checkpoint import v1 as ocp

        self.wait()
        name = f"{int(record['step']):08d}"
        record = {**record, "tree": shapes(state)}
        with self._told(name):
            if is_main():
                sweep(self.root)
                self._temporary(name).mkdir(parents=True)
            barrier("checkpoint")
            arrays = ocp.save_async(str(self._temporary(name) / "state"), state)
        self._pending = self._thread.submit(self._complete, name, arrays, record)
        return self.root / name

    def check(self) -> None:
        """Raises what went wrong in a save that has ended."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Returns when the last save is complete."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        try:
            self.wait()
        except UserError:
            if kind is None:  # else the first error is the one to tell
                raise
        finally:
            self._thread.shutdown()

    def _temporary(self, name: str) -> Path:
        return self.root / f"{TEMPORARY}{name}"

    def _complete(self, name: str, arrays: Any, record: dict[str, Any]) -> None:
        """Waits for the arrays; then process 0 seals the folder and renames it."""
        with self._told(name):
            arrays.result()
            if not is_main():
                return
            temporary, final = self._temporary(name), self.root / name
            _write_json(temporary / "record.json", record)
            _write_json(temporary / "manifest.json", checksums(temporary))
            self._drop(name)
            os.replace(temporary, final)
            older = [s for s in steps(self.root) if s != int(name)]
            for old in older[: max(0, len(older) - self.keep + 1)]:
                self._drop(f"{old:08d}")

    def _drop(self, name: str) -> None:
        """Removes a checkpoint: first its name, so that a kill leaves no half of it."""
        if (self.root / name).exists():
            doomed = self.root / f"{TEMPORARY}old-{name}"
            os.replace(self.root / name, doomed)
            shutil.rmtree(doomed)

    @contextlib.contextmanager
    def _told(self, name: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            if is_main():
                sweep(self.root)
            raise UserError(
                f"{self.root / name}: the checkpoint could not be written "
                f"({_reason(error)}); make room or choose another --out; earlier "
                "checkpoints are untouched"
            ) from error


def save(root: Path, state: PyTree, record: dict[str, Any], keep: int = 2) -> Path:
    """Writes `root/<step>` and waits for it; see `Saver`."""
    with Saver(root, keep) as saver:
        return saver.save(state, record)


def _reason(error: Exception) -> str:
    """What went wrong, in a few words; tensorstore tells it with all its paths."""
    text = str(error)
    if os.strerror(errno.ENOSPC) in text:
        return os.strerror(errno.ENOSPC)
    return (text.splitlines() or [type(error).__name__])[0]


@functools.cache
def _silence() -> None:
    """Keeps what fails in orbax's and tensorstore's threads from being printed, too.

    The first error of a save is raised; the threads beside it, which nobody can stop,
    log theirs, or find that their event loop is gone.
    """
    logging.getLogger("absl").addFilter(
        lambda record: "raised an exception" not in record.getMessage()
    )
    shown = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if not (kind is RuntimeError and str(error) == "Event loop is closed"):
            shown(kind, error, trace)

    sys.excepthook = hook


def _write_json(path: Path, value: Any) -> None:
    with path.open("w", encoding="utf-8") as stream:
        json.dump(value, stream, indent=1, allow_nan=False)
        stream.flush()
        os.fsync(stream.fileno())
