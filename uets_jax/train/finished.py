"""Opening a run that exists: evaluate it, generate from it."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jax.sharding import Mesh

from uets_jax.build import build
from uets_jax.config import ExperimentConfig, MeshConfig, window_length
from uets_jax.data.loading import load
from uets_jax.data.store import TokenStore, prepare
from uets_jax.data.tokenizer import Tokenizer
from uets_jax.errors import UserError
from uets_jax.evaluate.tasks import evaluate_task, read_task
from uets_jax.models.presets import read_config
from uets_jax.step import Program, evaluated
from uets_jax.train import checkpoint
from uets_jax.train.mesh import (
    abstract_state,
    check_rows,
    make_mesh,
    put_batch,
    row_shards,
)
from uets_jax.train.sameness import check_same_data, check_same_overrides
from uets_jax.train.session import Session, use_compilation_cache
from uets_jax.train.shapes import model_at
from uets_jax.train.summary import completed
from uets_jax.train.validation import validation
from uets_jax.types import Params, TrainState


class OpenRun(NamedTuple):
    """The newest intact checkpoint of a run, and what it needs; no training text."""

    path: Path
    config: ExperimentConfig
    program: Program
    mesh: Mesh
    tokenizer: Tokenizer
    state: TrainState
    record: dict[str, Any]

    @property
    def params(self) -> Params:
        """What is evaluated and generated from."""
        return evaluated(self.program, self.state)


def open_run(run: Path, overrides: Mapping[str, Any] | None = None) -> OpenRun:
    """Reads config, tokenizer and the newest intact checkpoint of a run.

    Args:
      run: the run's folder.
      overrides: the own parts that it was trained with, see `build`.

    Raises:
      UserError: if the folder holds no complete checkpoint.
    """
    path = Path(run).absolute()
    config = read_config(path / "config.json")
    use_compilation_cache(config.data.cache)
    mesh, names = usable_mesh(config), sorted(overrides or {})
    resized = lambda record: model_at(config.model, record)
    at = lambda record: dataclasses.replace(config, model=resized(record))
    found, damaged = checkpoint.load_newest(
        path / "checkpoints",
        lambda record: abstract_state(build(at(record), overrides), mesh),
        lambda record: check_same_overrides(path, record, names),
    )
    for what in damaged:
        print(f"left out a damaged checkpoint: {what}", file=sys.stderr)
    if found is None:
        raise UserError(f"{run}: no complete checkpoint; train on with --resume {run}")
    tokenizer = load(str(path / "tokenizer.json"))
    config = at(found[1])
    program = build(config, overrides)
    return OpenRun(path, config, program, mesh, tokenizer, *found)


def usable_mesh(config: ExperimentConfig) -> Mesh:
    """The run's own mesh, or one device where that does not fit this machine."""
    try:
        mesh = make_mesh(config.train.mesh)
        rows = config.train.batch // config.train.microbatches
        check_rows(rows, mesh, "train.batch")
    except UserError:
        return make_mesh(MeshConfig(data=1))
    return mesh


def evaluate_run(
    run: Path, source: str = "", split: str = "valid", tokens: int = 0
) -> dict[str, float | int]:
    """Loss, perplexity and bits per byte of a run on its own or on another source.

    Args:
      run: the run's folder.
      source: a data source; empty: the run's own, which must not have changed. Text is
        encoded with the run's tokenizer and read whole; a `tokens:` source must have
        that tokenizer and has splits of its own.
      split: train or valid.
      tokens: at most so many, from the beginning; 0: all.
    """
    opened = open_run(run)
    if source:
        store = other_store(opened, source)
    else:
        store = prepare(opened.config.data)
        hashes = (store.tokenizer.hash, store.fingerprint)
        check_same_data(opened.path, opened.record, *hashes)
    session = Session(opened.config, store, opened.program, opened.mesh)
    found = validation(session, opened.params, split, tokens)
    return {"step": opened.record["step"], **found}


def evaluate_tasks(run: Path, paths: Sequence[str], limit: int = 0) -> dict[str, Any]:
    """Metrics of a run on task files (see `evaluate.tasks`), accuracy by group beside.

    Args:
      run: the run's folder; its training text is not needed.
      paths: JSONL files; the name of each begins the names of its metrics.
      limit: items of each group that are looked at; 0: all.

    Raises:
      UserError: for a file that can't be used, or two of the same name.
    """
    tasks = [read_task(path) for path in paths]
    names = [task.name for task in tasks]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(f"--tasks: two files are named {min(twice)!r}; rename one")
    opened = open_run(run)
    found: dict[str, Any] = {"step": opened.record["step"]}
    context, shards = window_length(opened.config), row_shards(opened.mesh)
    put = lambda batch: put_batch(batch, opened.mesh, shared=True)
    model = (opened.program, opened.params, opened.tokenizer)
    for task in tasks:
        scores = evaluate_task(*model, task, context, limit, put, shards)
        found |= scores.metrics
        groups = scores.groups.items()
        found |= {f"{task.name}_accuracy_by_{kind}": group for kind, group in groups}
        if cut := scores.metrics[f"{task.name}_cut"]:
            print(
                f"{task.name}: {cut} of {scores.metrics[f'{task.name}_texts']} texts "
                f"are longer than {context} tokens; their last tokens were scored",
                file=sys.stderr,
            )
    return found


def other_store(opened: OpenRun, source: str) -> TokenStore:
    """Another source in the tokens of a run.

    Raises:
      UserError: if it is a token store of another tokenizer.
    """
    data = dataclasses.replace(
        opened.config.data,
        source=source,
        valid_source="" if source.startswith("tokens:") else source,
        tokenizer=str(opened.path / "tokenizer.json"),
    )
    store = prepare(data)
    if store.tokenizer.hash != opened.tokenizer.hash:
        raise UserError(f"--source {source}: encoded with another tokenizer")
    return store


def generate_run(
    run: Path,
    prompt: str = "",
    tokens: int = 120,
    temperature: float = 0.8,
    top_k: int = 50,
    seed: int = 0,
) -> str:
    """Text that a run's model puts after `prompt`."""
    opened = open_run(run)
    settings = {"temperature": temperature, "top_k": top_k, "seed": seed}
    model = (opened.program, opened.config, opened.tokenizer, opened.params)
    return completed(*model, prompt, tokens=tokens, **settings)
