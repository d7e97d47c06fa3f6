"""Writing into a run's folder: whole files, and one clear line when it fails."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from uets_jax.errors import UserError
from uets_jax.train.processes import is_main


@contextlib.contextmanager
def told(path: Path) -> Iterator[None]:
    """Turns an `OSError` into a `UserError` that names the path and the mend."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{error.filename or path}: {error.strerror or error}; make room or choose "
            "another --out"
        ) from error


@contextlib.contextmanager
def said_to(log: Path) -> Iterator[None]:
    """What is printed goes to a file, after what stands there.

    Raises:
      UserError: if it can't be written.
    """
    with told(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        stream = log.open("a", encoding="utf-8")
    with stream, contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        yield


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Makes a run's folder and keeps other runs out of it; process 0's to do.

    The lock is the system's own on the folder: it leaves no file and ends with the
    process, however that ends. Where a file system knows none, nothing is locked.

    Raises:
      UserError: if the folder can't be made, or another run has it.
    """
    if not is_main():
        yield
        return
    with told(folder):
        folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{folder}: another process is training there; wait for its end or "
                "choose another --out"
            ) from None
        except OSError:
            pass
        yield
    finally:
        os.close(handle)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes a JSON file in one piece: the old one stays until the new is complete.

    Raises:
      ValueError: for a number that is not finite; strict readers refuse it.
    """
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", "utf-8")
    os.replace(temporary, path)
