"""One way to write a file of the report: whole or not at all."""

import contextlib
import os
from pathlib import Path

from uets_jax.errors import UserError


def replace_text(out: Path, text: str) -> Path:
    """Writes `text` to `out` in one atomic move, its folder too; returns `out`.

    Raises:
      UserError: when it can't be written.
    """
    out = Path(out)
    part = out.with_name(out.name + ".tmp")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(text.encode())
        os.replace(part, out)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise UserError(f"{out}: {error.strerror}: can't write the report") from None
    return out
