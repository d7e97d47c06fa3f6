"""Which shapes a run has at a step: those that it began with, changed as recorded."""

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


def model_at(began: ModelConfig, record: dict[str, Any]) -> ModelConfig:
    """The model of a checkpoint's record: as the run began, and what was done to it."""
    history: History = record.get("position", {}).get("growth", [])
    for event in history:
        for op in ops_of(event):
            began = resized(began, op)
    return began


def session_at(session: Session, record: dict[str, Any]) -> Session:
    """The session of a run as it began, in the shapes of a checkpoint's record."""
    return session.reshaped(model_at(session.config.model, record))


def abstract_at(session: Session, record: dict[str, Any]) -> TrainState:
    """Shapes, dtypes and shardings of a checkpoint's state."""
    return abstract_state(session_at(session, record).program, session.mesh)
