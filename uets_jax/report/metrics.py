"""`metrics.jsonl`: one JSON object per line, appended, read and cut back."""

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from uets_jax.errors import UserError

FLUSH_SECONDS = 5.0


class MetricsWriter:
    """Appends records to a JSONL file; buffered, as a context manager.

    A line that a kill left half-written at the end of the file is dropped on opening,
    so that no record is ever glued to it. What is written reaches the file at the first
    write `FLUSH_SECONDS` after the last flush, and at `flush` and `close`.

    Raises:
      UserError: when the file can't be opened or, from any method, written.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _drop_torn_line(self.path)
            self._file = open(self.path, "ab")  # noqa: SIM115
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}: can't append metrics") from None
        self._flushed = time.monotonic()

    def write(self, record: dict[str, Any]) -> None:
        """Adds one line.

        JSON has no NaN: a non-finite number is written as null and its key is listed
        under `nonfinite`. Array scalars become numbers.
        """
        bad: list[str] = []
        plain = {key: _plain(value, key, bad) for key, value in record.items()}
        if bad:
            plain["nonfinite"] = bad
        with self._told():
            self._file.write(json.dumps(plain, allow_nan=False).encode() + b"\n")
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Hands what is buffered to the operating system."""
        with self._told():
            self._file.flush()
        self._flushed = time.monotonic()

    def cut_back(self, step: int) -> None:
        """Takes back the records after a step; see the function `cut_back`."""
        self._file.close()
        cut_back(self.path, step)
        self._file = open(self.path, "ab")  # noqa: SIM115

    def close(self) -> None:
        """Flushes and closes; a second call does nothing."""
        with self._told():
            self._file.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.path}: {error.strerror}: can't append metrics; make room or "
                "choose another --out"
            ) from error

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self.close()
        except UserError:
            if kind is None:  # else the first error is the one to tell
                raise


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics file, in its order, without a torn last line.

    Raises:
      UserError: when the file can't be read, or for a broken line before the last one.
    """
    return [record for _, record in _lines(Path(path))]


def cut_back(path: Path, step: int) -> None:
    """Keeps the records with `step` at most the given one, byte for byte.

    Records without a step stay; a torn last line goes. The file is replaced in one
    atomic move, so a kill leaves the old or the new one. A missing file stays so.

    Raises:
      UserError: as `read_metrics`.
    """
    path = Path(path)
    if not path.exists():
        return

    def stays(record: dict[str, Any]) -> bool:
        at = record.get("step")
        return not isinstance(at, int | float) or at <= step

    kept = [line + b"\n" for line, record in _lines(path) if stays(record)]
    part = path.with_name(path.name + ".tmp")
    with open(part, "wb") as file:
        file.writelines(kept)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Each line that isn't blank, without its end, beside its record."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: can't read metrics") from None
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        record = _parsed(line)
        if record is not None:
            yield line, record
        elif number < len(lines):
            raise UserError(f"{path}:{number}: not a JSON object; delete this line")


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _drop_torn_line(path: Path) -> None:
    """Ends the file after its last whole record."""
    if not path.exists():
        return
    with open(path, "rb+") as file:
        end = file.seek(0, os.SEEK_END)
        last = b""
        start = end
        while start and b"\n" not in last:
            start = max(0, start - 4096)
            file.seek(start)
            last = file.read(end - start)
        tail = last[last.rfind(b"\n") + 1 :]
        if tail and _parsed(tail) is None:
            file.truncate(end - len(tail))
        elif tail:
            file.seek(end)
            file.write(b"\n")


def _plain(value: Any, key: str, bad: list[str]) -> Any:
    """`value` as JSON can hold it; adds the keys of non-finite numbers to `bad`."""
    if isinstance(value, dict):
        return {str(k): _plain(v, f"{key}.{k}", bad) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, key, bad) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        if key not in bad:
            bad.append(key)
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)
