"""The model as it was before it last grew, which the grown one's selection refers to.

    snapshots/00000100/...    its parameters, in the format of a checkpoint

It is stored once, at the growth, under that one's step. A checkpoint names it, so that
a run which goes on from there, or falls back to there, refers to the same one.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from uets_jax.errors import UserError
from uets_jax.train import checkpoint, saver
from uets_jax.train.checkpoint import CorruptCheckpointError
from uets_jax.train.run import Run
from uets_jax.train.session import Session
from uets_jax.types import Params

FOLDER = "snapshots"
ALL = 1 << 20  # of them are kept: older checkpoints name older ones


def filled(after: Session, before: Session, params: Params) -> Session:
    """`after` a change, with these parameters where it refers to the model `before`.

    A copy of them, on every device: steps give away the state that they are given.
    """
    if after.snapshot is None or after.snapshot is before.snapshot:
        return after
    everywhere = NamedSharding(before.mesh, PartitionSpec())
    own = dataclasses.replace(after.snapshot, params=_copier(everywhere)(params))
    return after.referring(own)


def put_by(run: Run) -> None:
    """Stores the snapshot of a growth that comes after this step."""
    assert run.session.snapshot is not None
    record = {"step": run.at.step}
    saver.save(run.out / FOLDER, run.session.snapshot.params, record, ALL)
    run.at.snapshot = run.at.step


def restored(session: Session, out: Path, step: int) -> Session:
    """The session with the snapshot that a growth after `step` put by; 0: with none.

    Raises:
      UserError: if it is not there, or damaged.
    """
    if not step:
        return session
    assert session.snapshot is not None
    path, like = out / FOLDER / f"{step:08d}", session.snapshot
    try:
        params, _ = checkpoint.load(path, lambda record: like.params)
    except CorruptCheckpointError as error:
        raise UserError(
            f"{error}: select.reference snapshot can't go on without it; restore it or "
            "train anew in another --out"
        ) from None
    return session.referring(dataclasses.replace(like, params=params))


@functools.lru_cache(maxsize=4)
def _copier(where: NamedSharding) -> Any:
    copy = lambda params: jax.tree.map(jnp.copy, params)
    return jax.jit(copy, out_shardings=where)
