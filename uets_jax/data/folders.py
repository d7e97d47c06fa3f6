"""Files and folders that appear whole or not at all, and the cache they live in."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from uets_jax.errors import UserError


def cache_folder(configured: str, name: str) -> Path:
    """Folder `name` of the cache: `configured`, else $UETS_CACHE, else ~/.cache.

    Raises:
      UserError: it can't be made.
    """
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    root = configured or os.environ.get("UETS_CACHE") or f"{home}/uets_jax"
    path = Path(root).expanduser() / name
    with _told(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def fresh_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that takes the name `path` when the block has ended well.

    Of two processes that do so at once, the first wins and both see its files.

    Raises:
      UserError: it can't be written.
    """
    temporary = _beside(path)
    try:
        with _told(path):
            temporary.mkdir(parents=True)
            yield temporary
            try:
                temporary.rename(path)
            except OSError:
                if not path.is_dir():
                    raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def fresh_file(path: Path) -> Iterator[IO[str]]:
    """A text file that takes the name `path` when the block has ended well.

    Raises:
      UserError: it can't be written.
    """
    temporary = _beside(path)
    try:
        with _told(path):
            with open(temporary, "w", encoding="utf-8") as stream:
                yield stream
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: can't be written ({error.strerror or error}); make room or "
            "choose another folder (the cache: --data.cache or $UETS_CACHE)"
        ) from None
