"""Which shapes a run has at a step: those that it began with, changed as recorded."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

from uets_jax.config import ModelConfig
from uets_jax.growth.stages import Op, resized
from uets_jax.train.mesh import abstract_state
from uets_jax.train.session import Session
from uets_jax.types import TrainState

History = Sequence[dict[str, Any]]


def ops_of(event: dict[str, Any]) -> tuple[Op, ...]:
    """The changes of an entry of a run's history."""
    return tuple(
        Op(one["field"], one["size"], one["how"], tuple(map(tuple, one["keep"])))
        for one in event["ops"]
    )


def models_of(began: ModelConfig, record: dict[str, Any]) -> tuple[ModelConfig, ...]:
    """The model as the run began, and after each change in a checkpoint's record."""
    history: History = record.get("position", {}).get("growth", [])
    change = lambda model, event: functools.reduce(resized, ops_of(event), model)
    return tuple(itertools.accumulate(history, change, initial=began))


def model_at(began: ModelConfig, record: dict[str, Any]) -> ModelConfig:
    """The model of a checkpoint's record: as the run began, and what was done to it."""
    return models_of(began, record)[-1]


def session_at(session: Session, record: dict[str, Any]) -> Session:
    """The session of a run as it began, in the shapes of a checkpoint's record."""
    models = models_of(session.config.model, record)
    return functools.reduce(Session.reshaped, models, session)


def abstract_at(session: Session, record: dict[str, Any]) -> TrainState:
    """Shapes, dtypes and shardings of a checkpoint's state."""
    return abstract_state(session_at(session, record).program, session.mesh)
