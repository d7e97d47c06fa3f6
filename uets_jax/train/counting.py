"""A start from counts: the text that is counted, and what counting it costs."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from uets_jax.config import ExperimentConfig, ModelConfig, window_length
from uets_jax.data.store import TokenStore
from uets_jax.data.windows import cut, window_count
from uets_jax.errors import UserError
from uets_jax.measure.jaxpr import count
from uets_jax.measure.work import Costs
from uets_jax.models.closed_form import LARGEST, closed_form
from uets_jax.step import Program
from uets_jax.train.assets import FITTED
from uets_jax.train.mesh import Start
from uets_jax.types import Batch

AT_ONCE = 1 << 16  # tokens
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
    """(params, text) -> params; the same function for equal models."""
    return functools.partial(closed_form, model)


def counted_text(config: ExperimentConfig, store: TokenStore) -> Batch:
    """The windows of the training text, [chunks, R, L], up to `FITTED` tokens of it."""
    tokens = store.tokens("train")[: FITTED + 1]
    length = window_length(config)
    rows = max(1, min(AT_ONCE // length, window_count(len(tokens), length)))
    chunks = -(-window_count(len(tokens), length) // rows)
    ids = np.arange(chunks * rows)
    flat = cut(tokens, store.tokenizer.eot, length, ids)
    return jax.tree.map(lambda x: x.reshape(chunks, rows, *x.shape[1:]), flat)


def start_costs(config: ExperimentConfig, program: Program, text: Batch) -> Costs:
    """What the start from counts takes, all of it "statistics"."""
    params = jax.eval_shape(program.init, jax.random.key(0))
    traced = jax.make_jaxpr(start_of(config.model))(params, text)
    return count(traced, "statistics").total()
