"""Labelled corpora: JSON lines of {"id", "domain", "text"}, plain or packed.

`source` (which collection) and `work` (which book) are read where they stand.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from uets_jax.data.faults import BadDocument, usable
from uets_jax.data.files import lines, matching, open_bytes
from uets_jax.data.supply import Document
from uets_jax.errors import UserError


def inputs(folder: Path) -> tuple[list[str], list[str]]:
    """The files with documents to train on, and the held-out ones.

    Raises:
      UserError: there are none.
    """
    inner = folder / "multidomain"
    root = inner if inner.is_dir() else folder
    found = tuple(
        matching(str(root / f"{part}*.jsonl*")) for part in ("train", "valid")
    )
    return found[0], found[1]


def read(paths: Sequence[str]) -> Iterator[Document]:
    """The documents of some files, one after the other.

    Raises:
      UserError: a line that is no document, or a file that can't be read.
    """
    for path in paths:
        number = 0
        try:
            with open_bytes(path) as stream:
                for number, line in lines(stream):  # noqa: B007
                    if line is None or line.strip():
                        yield _document(line)
        except BadDocument as bad:
            raise UserError(f"{path}, line {number}: {bad}; mend the file") from None


def _document(line: bytes | None) -> Document:
    if line is None:
        raise BadDocument("line too long")
    try:
        row = json.loads(usable(line))
    except (ValueError, RecursionError) as error:
        raise BadDocument("broken JSON", f"broken JSON ({error})") from None
    row = row if isinstance(row, dict) else {}
    if not all(isinstance(row.get(key), str) for key in ("id", "domain", "text")):
        raise BadDocument("no document", "needs texts as id, domain and text")
    extra = (str(row.get(key) or "") for key in ("source", "work"))
    return Document(row["id"], row["domain"], usable(row["text"]), *extra)
