"""Values to a configuration and a directory: new runs, stored runs, their places."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uets_jax.config import FREE_ON_RESUME, ExperimentConfig, nested
from uets_jax.errors import UserError, nearest
from uets_jax.flags import spelled, value_at
from uets_jax.models.presets import from_dict, read_config
from uets_jax.train.sameness import allowed, check_allow
from uets_jax.validation import validate

# beside the package, in the repository as in an installation; not found by import,
# because a folder named "experiments" in the current directory would come first
RECIPES = Path(__file__).parents[1] / "experiments" / "recipes"


def configure(values: dict[str, Any], recipe: str | None = None) -> ExperimentConfig:
    """Defaults < recipe < preset and size < single fields, by dotted path."""
    base = None if recipe is None else read_recipe(recipe)
    return validate(from_dict(nested(values), base))


def configure_resumed(
    values: dict[str, Any], run: Path, allow: Sequence[str] = ()
) -> ExperimentConfig:
    """The config of a stored run, with the cadences that were given.

    Args:
      values: by dotted path.
      run: directory of the run.
      allow: fields or rooms that may change, too.

    Raises:
      UserError: for a value that would change the run.
    """
    check_allow(allow)
    stored = read_config(run / "config.json")
    for path, value in values.items():
        free = path in FREE_ON_RESUME or allowed(path, allow)
        if not free and value != value_at(stored, path):
            known = ", ".join(spelled(c) for c in FREE_ON_RESUME)
            raise UserError(
                f"{spelled(path)}: can't be changed by --resume, only {known} can; "
                f"allow it with --allow {path}, or start a new run"
            )
    return validate(from_dict(nested(values), stored))


def read_recipe(name: str) -> ExperimentConfig:
    """The config of a named recipe or of a JSON file."""
    known = {p.stem: p for p in sorted(RECIPES.glob("*.json"))}
    if name in known:
        return read_config(known[name])
    if name.endswith(".json") or os.sep in name:
        return read_config(Path(name))
    hint, listed = nearest(name, known), ", ".join(known)
    if hint.startswith("did you mean"):
        hint = f"{hint} There are {listed}"
    raise UserError(f"--recipe: no recipe {name!r}: {hint}; or give a .json file")


def run_dir(text: str) -> Path:
    """The directory of a run that exists."""
    path = Path(text)
    if not text or not os.path.isdir(path):
        raise UserError(f"{text!r}: no such directory")
    if not os.path.isfile(path / "config.json"):
        raise UserError(f"{text}: not the directory of a run (it has no config.json)")
    return path


def new_dir(name: str, out: str) -> Path:
    """Where a new run goes: a directory that doesn't hold one already."""
    plain = name.isprintable() and "/" not in name and name not in ("", ".", "..")
    if not out and not (plain and len(name.encode()) < 256):
        raise UserError(f"name: {name!r} can't name a directory: set --name or --out")
    path = Path(out) if out else Path("runs", name)
    if os.path.exists(path / "config.json"):
        raise UserError(
            f"{path}: already holds a run: continue it with --resume {path} "
            "or choose another --out"
        )
    return writable(path)


def writable(path: Path) -> Path:
    """`path`, which is a directory that can be written or made."""
    there = next(p for p in (path, *path.absolute().parents) if os.path.exists(p))
    if not there.is_dir():
        raise UserError(f"{path}: {there} is not a directory")
    if not os.access(there, os.W_OK):
        raise UserError(f"{path}: {there} is not writable")
    return path
