"""From a config to its selection: which of the ways to choose, with which parts."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array

from uets_jax.aql.adapters import bandit, last_layer
from uets_jax.aql.forwarded import by_dropout, by_entropy, by_excess, by_loss, forwarded
from uets_jax.aql.ordered import admit, ordered
from uets_jax.aql.streaming import aql
from uets_jax.component import Selection
from uets_jax.config import (
    CurriculumConfig,
    ExperimentConfig,
    KnobsConfig,
    ModelConfig,
    SelectConfig,
    candidates,
    window_length,
)
from uets_jax.types import Batch, Params
from uets_jax.uncertainty.mc_dropout import information

PASSES = 10  # of MC-dropout, as in v1


class Chosen(NamedTuple):
    """What the selection of a program depends on; `batch` rows of `length` tokens."""

    select: SelectConfig
    curriculum: CurriculumConfig
    batch: int
    length: int


def chosen(config: ExperimentConfig) -> Chosen | None:
    """The static part of a config's selection; None where nothing is chosen."""
    if candidates(config) == 1:
        return None
    own = {"knobs": KnobsConfig(), "target": "", "reference": ""}
    select = dataclasses.replace(config.select, **own)
    curriculum = dataclasses.replace(config.curriculum, lengths="")
    return Chosen(select, curriculum, config.train.batch, window_length(config))


def selection(how: Chosen, model: ModelConfig, parts: Any) -> Selection:
    """The selection of a run.

    Args:
      how: see `chosen`.
      model: the architecture.
      parts: its functions `forward` and `logits`.
    """
    method, curriculum, batch = how.select.method, how.curriculum, how.batch
    forward = parts.forward
    if method == "none":
        scores = {"loss": by_loss(forward), "entropy": by_entropy(forward)}
        return ordered(curriculum, batch, scores.get(curriculum.difficulty))
    if method == "loss":
        return forwarded(by_loss(forward), batch)
    if method == "rho":
        return forwarded(by_excess(forward), batch)
    if method == "mc_dropout":
        return forwarded(by_dropout(_dropped(how, parts.logits)), batch)
    bar = admit(curriculum) if curriculum.difficulty != "none" else None
    posterior = None
    if how.select.uncertainty:
        posterior = last_layer(model.width, model.vocab)
    learned = bandit() if how.select.policy else None
    return aql(how.select, batch, how.length, bar, posterior, learned)


def _dropped(how: Chosen, logits: Any) -> Callable[..., Array]:
    """MC-dropout over the candidates, a batch of them at a time."""

    def found(params: Params, pool: Batch, key: Array) -> Array:
        pieces = how.select.candidates
        return information(logits, params, pool.tokens, key, PASSES, pieces)

    return found
