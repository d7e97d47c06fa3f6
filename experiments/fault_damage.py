"""Damaged checkpoints: loaded as they were saved, or not at all."""

import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.fault_checks import abstract, check, state_sha256
from experiments.fault_runs import Bench, Facts, Row, repeat, total, whole
from uets_jax.errors import UserError
from uets_jax.train import checkpoint
from uets_jax.types import TrainState

KEPT = 3  # checkpoints in the folder
SECOND = 0.25  # chance that an older checkpoint is damaged, too


class Saved(NamedTuple):
    """A folder of checkpoints, and what each step in it holds."""

    root: Path
    abstract: TrainState
    content: dict[int, str]


def saved(out: Path) -> Saved:
    """Reads the last checkpoints of a run, before anything is done to them."""
    root, shapes = out / "checkpoints", abstract(out)
    last = checkpoint.steps(root)[-KEPT:]
    found = (
        checkpoint.load(root / f"{step:08d}", lambda record: shapes) for step in last
    )
    content = {record["step"]: _content(state, record) for state, record in found}
    return Saved(root, shapes, content)


def _content(state: TrainState, record: dict[str, Any]) -> str:
    return state_sha256(state) + json.dumps(record, sort_keys=True)


def damage(bench: Bench, trials: int) -> Row:
    """Flips, truncations, deletions in the newest of three checkpoints, or in more."""
    good = saved(whole(bench).path)
    row, facts = repeat(bench, "damage", trials, lambda *given: _trial(good, *given))
    counts = ("fell_back", "refused", "harmless")
    return row | {name: total(facts, name) for name in counts}


def _trial(good: Saved, out: Path, rng: np.random.Generator) -> Facts:
    for step in good.content:
        shutil.copytree(good.root / f"{step:08d}", out / f"{step:08d}")
    steps = checkpoint.steps(out)
    hurt = [steps[-1], *(s for s in steps[:-1] if rng.random() < SECOND)]
    what = [spoil(out / f"{step:08d}", rng) for step in hurt]
    return outcome(good._replace(root=out), hurt, "; ".join(what))


def spoil(path: Path, rng: np.random.Generator) -> str:
    """Damages one file below `path` in one way; says which and how."""
    files = sorted(p for p in path.rglob("*") if p.is_file())
    file = files[rng.integers(len(files))]
    content = bytearray(file.read_bytes())
    kind = ("delete", "truncate", "flip")[rng.integers(3)] if content else "delete"
    if kind == "delete":
        file.unlink()
    elif kind == "truncate":
        os.truncate(file, int(rng.integers(len(content))))
    else:
        for place in rng.integers(len(content), size=rng.integers(1, 9)):
            content[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(content)
    return f"{kind} {file}"


def outcome(given: Saved, hurt: list[int], what: str) -> Facts:
    """Loads the newest checkpoint that verifies, some of them damaged.

    Raises:
      Failure: if what is loaded was never saved, a damaged step is passed over in
        silence, or an intact one at all.
    """
    intact = max(set(given.content) - set(hurt), default=0)
    try:
        found, notes = checkpoint.load_newest(given.root, lambda record: given.abstract)
    except UserError as error:
        found, notes = None, [str(error)]
    step = found[1]["step"] if found else 0
    if found:
        right = _content(*found) == given.content.get(step)
        check(right, f"step {step}: wrong content was loaded in silence: {what}")
    check(step >= intact, f"step {intact} was intact but not loaded: {what}")
    passed = [s for s in given.content if s > step]
    named = [s for s in passed if any(f"{s:08d}" in note for note in notes)]
    check(named == passed, f"went back to step {step} without saying why: {what}")
    return {"harmless" if not passed else "fell_back" if found else "refused": 1}
