"""Reading checkpoints: arrays by orbax, a JSON record beside them, checksums of both.

    checkpoints/00000100/state/...      orbax (API v1)
                         record.json    step, data position, ledger, tree of shapes
                         manifest.json  sha256 of every file

A checkpoint is written under a temporary name and renamed when complete (see `saver`).
Orbax notices neither a flipped bit nor a tree of another depth: both are checked here.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jaxtyping import PyTree

from uets_jax.errors import UserError

Check = Callable[[dict[str, Any]], object]  # raises, or lets pass
Abstract = Callable[[dict[str, Any]], PyTree]  # from the record to what it looks like

TEMPORARY = ".tmp-"
_DAMAGED = ".damaged"


class CorruptCheckpointError(RuntimeError):
    """A checkpoint's files are not those that were written."""


def steps(root: Path) -> list[int]:
    """The steps that have a checkpoint, rising; renamed only when complete."""
    if not root.is_dir():
        return []
    numbers = (int(p.name) for p in root.iterdir() if p.name.isdecimal())
    return sorted(n for n in numbers if (root / f"{n:08d}").exists())


def sweep(root: Path) -> None:
    """Removes what a killed save left behind."""
    for path in root.glob(f"{TEMPORARY}*"):
        shutil.rmtree(path, ignore_errors=True)


def set_aside(root: Path, above: int) -> None:
    """Renames the checkpoints above a step: damaged, and no longer counted."""
    for step in steps(root):
        if step > above:
            aside = root / f"{step:08d}{_DAMAGED}"
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(root / f"{step:08d}", aside)


def load(
    path: Path, abstract: Abstract, check: Check = lambda record: None
) -> tuple[PyTree, dict[str, Any]]:
    """Reads the checkpoint at `path` into the shapes and shardings of its state.

    Args:
      path: the checkpoint.
      abstract: from its record to shapes, dtypes and shardings; a run that grows has
        others at other steps.
      check: raises if the record is not of the run that is to go on.

    Raises:
      CorruptCheckpointError: if a file is missing or differs from its checksum.
      UserError: if it was made by a model of other shapes; names the first difference.
    """
    from orbax.checkpoint import v1 as ocp

    verify(path)
    record = json.loads((path / "record.json").read_text("utf-8"))
    check(record)
    like = abstract(record)
    stored, wanted = record.pop("tree"), shapes(like)
    for leaf in sorted({*stored, *wanted}):
        if stored.get(leaf) != wanted.get(leaf):
            raise UserError(
                f"{path}: {leaf} is {stored.get(leaf)} in the checkpoint but "
                f"{wanted.get(leaf)} in the model; resume with the same config"
            )
    return ocp.load(str(path / "state"), like), record


def load_newest(
    root: Path, abstract: Abstract, check: Check = lambda record: None
) -> tuple[tuple[PyTree, dict[str, Any]] | None, list[str]]:
    """((state, record) of the newest intact checkpoint or None, what was damaged)."""
    damaged = []
    for step in reversed(steps(root)):
        try:
            return load(root / f"{step:08d}", abstract, check), damaged
        except CorruptCheckpointError as error:
            damaged.append(str(error))
    return None, damaged


def verify(path: Path) -> None:
    """Compares every file with the manifest.

    Raises:
      CorruptCheckpointError: naming the first file that differs.
    """
    try:
        manifest = json.loads((path / "manifest.json").read_text("utf-8"))
        files = dict(manifest)
    except (OSError, ValueError, TypeError) as error:
        raise CorruptCheckpointError(f"{path}: manifest.json unreadable") from error
    present = checksums(path)
    for name in sorted({*files, *present}):
        if files.get(name) != present.get(name):
            raise CorruptCheckpointError(f"{path / name}: checksum differs")


def checksums(path: Path) -> dict[str, str]:
    """sha256 of every file in a checkpoint but the manifest, by relative path."""
    files = (p for p in path.rglob("*") if p.is_file() and p.name != "manifest.json")
    digests = {}
    for file in sorted(files):
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        digests[file.relative_to(path).as_posix()] = digest
    return digests


def shapes(state: Any) -> dict[str, str]:
    """dtype and shape of every leaf, by its path in the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(p): f"{x.dtype}{list(x.shape)}" for p, x in leaves}
