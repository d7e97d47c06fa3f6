"""Text files, plain or packed, read in bounded memory.

`files:GLOB`: each file is a document; a long one is cut into sections.
"""

import codecs
import contextlib
import glob
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from uets_jax.data.faults import BadDocument, Faults, usable
from uets_jax.data.zst import open_zstandard
from uets_jax.errors import UserError

SECTION = 64 * 1024  # bytes of the longest document cut from a file
LINE = 16 * 1024 * 1024  # bytes of the longest line
OPENERS: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".xz": lzma.open,
    ".zst": open_zstandard,
    ".zstd": open_zstandard,
}


def read_files(pattern: str, faults: Faults) -> Iterator[str]:
    """The sections of every file that matches `pattern`, in the order of the paths.

    A bad section is one fault; so is a file that can't be read on.
    """
    for path in matching(pattern):
        line, empty = 1, True
        try:
            with open_bytes(path) as stream:
                for raw in sections(stream):
                    empty = False
                    try:
                        yield usable(raw)
                    except BadDocument as bad:
                        at = line + raw[: bad.offset].count(b"\n")
                        faults.report(f"{path}, line {at}", bad)
                    line += raw.count(b"\n")
            if empty:
                raise BadDocument("empty")
        except BadDocument as bad:
            faults.report(path, bad)


def matching(pattern: str) -> list[str]:
    """Sorted paths that match a glob (`**`: any folders) or that it names as is.

    Raises:
      UserError: nothing matches.
    """
    pattern = os.path.expanduser(pattern)
    if os.path.lexists(pattern):
        return [pattern]
    paths = sorted(set(glob.glob(pattern, recursive=True)))
    if pattern.endswith("**"):
        paths = [path for path in paths if not os.path.isdir(path)]
    if not paths:
        raise UserError(f"{pattern!r} matches no file; check the path")
    return paths


@contextlib.contextmanager
def open_bytes(path: str) -> Iterator[io.BufferedIOBase]:
    """The unpacked bytes of a plain, .gz, .xz or .zst file, without a byte order mark.

    Raises:
      BadDocument: for all that goes wrong here or while the stream is read.
    """
    if os.path.isdir(path):
        raise BadDocument("directory", f"is a directory, not a file (try {path}/**)")
    if os.path.exists(path) and not os.path.isfile(path):
        raise BadDocument("unreadable", "is not a regular file")
    suffix = os.path.splitext(path)[1]
    try:
        with OPENERS.get(suffix, open)(path, "rb") as stream:
            if stream.read(3) != codecs.BOM_UTF8:
                stream.seek(0)
            yield stream
    except EOFError:
        raise BadDocument(
            "truncated", "is cut off: the packed data end early"
        ) from None
    except (gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise BadDocument("corrupt", f"can't be unpacked ({error})") from None
    except OSError as error:
        raise BadDocument("unreadable", f"can't be read ({error.strerror})") from None


def sections(stream: io.BufferedIOBase, size: int = SECTION) -> Iterator[bytes]:
    """Cuts a stream into parts of at most `size` bytes that join to the whole.

    A part ends after a blank line, else after a line, else between characters.
    """
    rest = b""
    while block := stream.read(size):
        rest += block
        while len(rest) > size:
            cut = _boundary(rest, size)
            yield rest[:cut]
            rest = rest[cut:]
    if rest:
        yield rest


def _boundary(data: bytes, size: int) -> int:
    for mark in (b"\n\n", b"\n\r\n", b"\n"):
        at = data.rfind(mark, size // 2, size)
        if at >= 0:
            return at + len(mark)
    inside = (at for at in range(size, max(size - 4, 0), -1) if data[at] & 0xC0 != 0x80)
    return next(inside, size)


def lines(
    stream: io.BufferedIOBase, cap: int = LINE
) -> Iterator[tuple[int, bytes | None]]:
    """Line numbers from 1 and lines; None for one longer than `cap` bytes."""
    number = 0
    while line := stream.readline(cap + 1):
        number += 1
        whole = len(line) <= cap or line.endswith(b"\n")
        yield number, line if whole else None
        while line and not line.endswith(b"\n"):
            line = stream.readline(SECTION)
