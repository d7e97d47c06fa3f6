"""Zstandard files, read in bounded memory."""

import importlib.util
import io
import os
from typing import Any, Literal

from uets_jax.data.faults import BadDocument
from uets_jax.errors import UserError

PIECE = 512  # packed bytes unpacked at once: 16 MiB at most, be they a bomb
WINDOW = 2**27  # bytes of the largest window; the program `zstd` has the same limit
BUFFER = 64 * 1024  # bytes
_TOO_LONG = f"needs a window above {WINDOW // 2**20} MiB: pack it again, without --long"


class ZstandardFile(io.RawIOBase):
    """The unpacked bytes of all frames of a .zst file, in bounded memory.

    Raises:
      BadDocument: while it is read: "corrupt", or "unsupported": a window above WINDOW.
      EOFError: while it is read: the last frame is cut off.
    """

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream
        self._rewind()

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes, but only back to the start."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """To the start, or nowhere: `seek(0)` or `seek(0, os.SEEK_CUR)`."""
        if offset or whence == os.SEEK_END:
            raise io.UnsupportedOperation("only back to the start")
        if whence == os.SEEK_SET and self._position:
            self._rewind()
        return self._position

    def close(self) -> None:
        """Closes the packed file too."""
        self._stream.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        """Fills at most `buffer`; 0 at the end."""
        while not self._ready and (packed := self._packed or self._stream.read(PIECE)):
            self._unpack(packed)
        if not self._ready and self._frame is not None:
            raise EOFError
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        self._position += count
        return count

    def _rewind(self) -> None:
        self._stream.seek(0)
        self._position, self._packed, self._ready = 0, b"", memoryview(b"")
        self._frame = None

    def _unpack(self, packed: bytes) -> None:
        import zstandard

        if self._frame is None:
            unpacker = zstandard.ZstdDecompressor(max_window_size=WINDOW)
            self._frame = unpacker.decompressobj()
        try:
            self._ready = memoryview(self._frame.decompress(packed))
        except zstandard.ZstdError as error:
            if "too much memory" in str(error):
                raise BadDocument("unsupported", _TOO_LONG) from None
            raise BadDocument("corrupt", f"can't be unpacked ({error})") from None
        self._packed = self._frame.unused_data
        if self._frame.eof:
            self._frame = None


def open_zstandard(path: str, mode: Literal["rb"] = "rb") -> io.BufferedReader:
    """The unpacked bytes of a .zst file.

    Raises:
      UserError: the package `zstandard` is missing.
    """
    if importlib.util.find_spec("zstandard") is None:
        raise UserError(f"{path} needs a package: pip install zstandard")
    return io.BufferedReader(ZstandardFile(open(path, mode)), BUFFER)
