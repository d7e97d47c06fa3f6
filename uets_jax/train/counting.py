"""A start from counts: the text that is counted, and what counting it costs."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from uets_jax.aql.counted import worth_counting
from uets_jax.config import (
    ExperimentConfig,
    ModelConfig,
    SelectConfig,
)
from uets_jax.data.windows import Windows, cut, window_count
from uets_jax.errors import UserError
from uets_jax.measure.jaxpr import count
from uets_jax.measure.work import Cost, Costs
from uets_jax.models.backoff import backoff_tables, operations
from uets_jax.models.closed_form import LARGEST, Read, closed_form
from uets_jax.step import Program
from uets_jax.train.assets import FITTED
from uets_jax.train.mesh import Start
from uets_jax.types import IGNORED, Batch, Params

AT_ONCE = 1 << 16  # tokens
HELD = 0.5  # of the text, at most
NEEDS = ("init", "forward", "logits")  # of the program, this house's own


def check_start(config: ExperimentConfig, overrides: Mapping[str, Any] | None) -> None:
    """Raises `UserError` where a start from counts is asked for and can't be had."""
    if config.train.start != "counts":
        return
    own = [name for name in NEEDS if name in (overrides or {})]
    if own:
        raise UserError(
            f"train.start: counts knows this house's models only, not an own {own[0]}; "
            "use random"
        )
    if config.model.vocab > LARGEST:
        raise UserError(
            f"train.start: counts takes a vocabulary of at most {LARGEST:,}, got "
            f"{config.model.vocab:,}; use random or a smaller data.tokenizer"
        )


@functools.lru_cache(maxsize=16)
def start_of(model: ModelConfig) -> Start:
    """(params, counted) -> params; the same function for equal models."""
    return functools.partial(closed_form, model)


def counted(config: ExperimentConfig, windows: Windows, assets: Any) -> Read:
    """All that a start from counts reads of a run's text.

    Args:
      config: of the run.
      windows: of the training text.
      assets: of the run; with a selection it says which windows are worth it.
    """
    text = chosen_text(config, assets, counted_text(windows, config.train.steps))
    tables = backoff_tables(config.model, text) if config.model.backoff_order else None
    return Read(text, tables)


def counted_text(windows: Windows, steps: int) -> Batch:
    """All windows in their order, [chunks, R, L], up to `FITTED` tokens of them.

    What a run of `steps` is offered first has nothing to predict, up to the share
    `HELD` of the text: tables know what was counted by heart, and a model that is
    trained on the same windows learns to trust them more than a new text bears.
    """
    tokens, length = windows.tokens[: FITTED + 1], windows.length
    count = window_count(len(tokens), length)
    rows = max(1, min(AT_ONCE // length, count))
    rows = -(-rows // windows.piece) * windows.piece
    chunks = -(-count // rows)
    ids = np.arange(chunks * rows)
    flat = cut(tokens, windows.eot, length, ids)
    held = np.isin(ids, offered_first(windows, steps))
    flat = flat._replace(targets=np.where(held[:, None], IGNORED, flat.targets))
    return jax.tree.map(lambda x: x.reshape(chunks, rows, *x.shape[1:]), flat)


def offered_first(windows: Windows, steps: int) -> np.ndarray:
    """Ids of the windows of the first steps, at most `HELD` of all."""
    most = int(HELD * windows.count)
    found = [np.zeros(0, np.int64)]
    for step in range(min(steps, -(-most // windows.batch))):
        found.append(windows.order(step))
    return np.concatenate(found)[:most]


def chosen_text(config: ExperimentConfig, assets: Any, text: Batch) -> Batch:
    """The text with nothing to predict in windows that the selection would not choose.

    Args:
      assets: of the run; without a method aql all windows are counted.
      text: of `counted_text`.
    """
    if config.select.method != "aql" or config.select.mode == "pool":
        return text
    keep = _worth(config.select)(assets, text)
    return text._replace(targets=jnp.where(keep[..., None], text.targets, IGNORED))


@functools.lru_cache(maxsize=16)
def _worth(select: SelectConfig) -> Any:
    return jax.jit(functools.partial(worth_counting, select))


def start_costs(
    config: ExperimentConfig, program: Program, assets: Any, windows: Windows
) -> Costs:
    """What the start from counts takes, all of it "statistics"."""
    text = counted_text(windows, config.train.steps)
    params = jax.eval_shape(program.init, jax.random.key(0))

    def begin(params: Params, assets: Any, text: Batch) -> Params:
        read = Read(chosen_text(config, assets, text), params.get("backoff"))
        return start_of(config.model)(params, read)

    traced = jax.make_jaxpr(begin)(params, assets, text)
    costs = count(traced, "statistics").total()
    if config.model.backoff_order:
        own = Cost(elementwise=operations(config.model, text.targets.size))
        costs["statistics"] = costs["statistics"] + own
    return costs
