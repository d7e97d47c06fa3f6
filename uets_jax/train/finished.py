"""Opening a run that exists: evaluate it, generate from it."""

import dataclasses
from pathlib import Path

import numpy as np

from uets_jax.data.store import prepare
from uets_jax.errors import UserError
from uets_jax.models.presets import read_config
from uets_jax.train import checkpoint
from uets_jax.train.loop import validation
from uets_jax.train.mesh import abstract_state
from uets_jax.train.session import Session, open_session
from uets_jax.train.summary import continuation
from uets_jax.types import TrainState


def open_run(run: Path) -> tuple[Session, TrainState, int]:
    """(session, state, step) of the newest intact checkpoint.

    Raises:
      UserError: if the folder holds no complete checkpoint.
    """
    root = Path(run).absolute() / "checkpoints"
    session = open_session(read_config(Path(run) / "config.json"))
    abstract = abstract_state(session.program, session.mesh)
    found, _ = checkpoint.load_newest(root, abstract)
    if found is None:
        raise UserError(f"{run}: no complete checkpoint; train on with --resume {run}")
    state, record = found
    return session, state, record["step"]


def evaluate_run(
    run: Path, source: str = "", split: str = "valid", tokens: int = 0
) -> dict[str, float | int]:
    """Loss, perplexity and bits per byte of a run on its own or on another source.

    Args:
      run: the run's folder.
      source: a data source; empty: the run's own. All of its text is read, encoded
        with the run's tokenizer; a `tokens:` source must have that tokenizer already.
      split: train or valid.
      tokens: at most so many; 0: all.
    """
    session, state, step = open_run(run)
    if source:
        tokenizer = Path(session.store.directory) / "tokenizer.json"
        data = dataclasses.replace(
            session.config.data,
            source=source,
            valid_source="" if source.startswith("tokens:") else source,
            tokenizer=str(tokenizer),
        )
        store = prepare(data)
        if store.tokenizer.hash != session.store.tokenizer.hash:
            raise UserError(f"--source {source}: encoded with another tokenizer")
        session = dataclasses.replace(session, store=store)
    return {"step": step, **validation(session, state, split, tokens)}


def generate_run(
    run: Path,
    prompt: str = "",
    tokens: int = 120,
    temperature: float = 0.8,
    top_k: int = 50,
    seed: int = 0,
) -> str:
    """Text that a run's model puts after `prompt`."""
    session, state, _ = open_run(run)
    tokenizer = session.store.tokenizer
    ids = np.concatenate([[tokenizer.eot], tokenizer.encode(prompt)]).astype(np.int32)
    settings = {"temperature": temperature, "top_k": top_k, "seed": seed}
    return prompt + continuation(session, state, ids, tokens=tokens, **settings)
