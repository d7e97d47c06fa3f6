"""What is wrong with a run: two of them compared, checkpoints read."""

import functools
import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from uets_jax.build import build
from uets_jax.config import ExperimentConfig, MeshConfig
from uets_jax.models.presets import read_config
from uets_jax.report.metrics import read_metrics
from uets_jax.train import checkpoint
from uets_jax.train.mesh import abstract_state, make_mesh
from uets_jax.types import TrainState

# equal in two summaries if, and only if, nothing was lost and nothing done twice
_SUMMARY = (
    "steps",
    "tokens",
    "flops",
    "data_sha256",
    "corpus_sha256",
    "tokenizer_sha256",
    "params_sha256",
    "final_loss",
    "final_train_loss",
    "bits_per_byte",
)
_METRICS = ("step", "tokens", "flops", "grad_norm", "learning_rate", "bits_per_byte")


class Failure(Exception):
    """What the program did wrong in one trial."""


def check(condition: bool, message: str) -> None:
    """Raises `Failure` with the message unless the condition holds."""
    if not condition:
        raise Failure(message)


def first_difference(whole: Path, other: Path) -> str:
    """What two finished runs differ in, in words; empty when they are bit-identical.

    Every validation and every step's loss, gradient norm, tokens and FLOPs; parameters
    and order of the data as hashes. Clocks are left out.
    """
    lines = itertools.zip_longest(figures(whole), figures(other))
    for wanted, found in lines:
        if wanted != found:
            return f"metrics.jsonl: {wanted} became {found}"
    wanted, found = summary(whole), summary(other)
    for key in _SUMMARY:
        if wanted[key] != found[key]:
            return f"summary.json: {key}: {wanted[key]} became {found[key]}"
    return ""


def check_same(whole: Path, other: Path) -> None:
    """Raises `Failure`, with the first difference, unless runs are bit-identical."""
    difference = first_difference(whole, other)
    check(not difference, difference)


def figures(out: Path) -> list[dict[str, Any]]:
    """The records of steps and validations, less what a clock says."""
    exact = lambda key: key in _METRICS or "loss" in key
    return [
        {key: value for key, value in record.items() if exact(key)}
        for record in read_metrics(out / "metrics.jsonl")
        if "event" not in record
    ]


def summary(out: Path) -> dict[str, Any]:
    """`summary.json` of a finished run."""
    return json.loads((out / "summary.json").read_text("utf-8"))


def newest(out: Path) -> int:
    """The step of the newest checkpoint; 0 where there is none."""
    return max(checkpoint.steps(out / "checkpoints"), default=0)


def abstract(out: Path, devices: int = 1) -> TrainState:
    """What the state of a run looks like on so many devices."""
    return _abstract(read_config(out / "config.json"), devices)


@functools.lru_cache(maxsize=16)
def _abstract(config: ExperimentConfig, devices: int) -> TrainState:
    return abstract_state(build(config), make_mesh(MeshConfig(data=devices)))


def check_readable(out: Path) -> None:
    """Every checkpoint verifies and the newest one loads.

    Raises:
      Failure: naming what is wrong.
    """
    root, damaged = out / "checkpoints", []
    for step in checkpoint.steps(root):
        try:
            checkpoint.verify(root / f"{step:08d}")
        except checkpoint.CorruptCheckpointError as error:
            damaged.append(str(error))
    check(not damaged, f"unreadable: {damaged}")
    if newest(out):
        found, _ = checkpoint.load_newest(root, lambda record: abstract(out))
        step = found[1]["step"] if found else None
        check(step == newest(out), f"step {newest(out)} verifies, step {step} loads")


def state_sha256(state: PyTree) -> str:
    """sha256 over dtype, shape and bytes of every leaf, random keys included."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        value = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
        digest.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
    return digest.hexdigest()
