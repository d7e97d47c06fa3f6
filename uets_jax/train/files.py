"""Writing into a run's folder: whole files, and one clear line when it fails."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from uets_jax.errors import UserError


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


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes a JSON file in one piece: the old one stays until the new is complete.

    Raises:
      ValueError: for a number that is not finite; strict readers refuse it.
    """
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", "utf-8")
    os.replace(temporary, path)
