"""From a config to its selection: which of the ways to choose, with which parts."""

from typing import Any, Protocol

from uets_jax.aql.forwarded import by_dropout, by_entropy, by_loss, forwarded
from uets_jax.aql.ordered import admit, ordered
from uets_jax.aql.streaming import aql
from uets_jax.component import Selection
from uets_jax.config import CurriculumConfig, ModelConfig, SelectConfig


class Chosen(Protocol):
    """What a selection depends on."""

    @property
    def select(self) -> SelectConfig: ...
    @property
    def curriculum(self) -> CurriculumConfig: ...
    @property
    def batch(self) -> int: ...
    @property
    def length(self) -> int: ...


def selection(chosen: Chosen, model: ModelConfig, parts: Any) -> Selection:
    """The selection of a run.

    Args:
      chosen: how; `batch` rows of `length` tokens are trained on.
      model: the architecture.
      parts: its functions `forward` and `logits`.
    """
    method, curriculum, batch = chosen.select.method, chosen.curriculum, chosen.batch
    forward = parts.forward
    if method == "none":
        scores = {"loss": by_loss(forward, False), "entropy": by_entropy(forward)}
        return ordered(curriculum, batch, scores.get(curriculum.difficulty))
    if method in ("loss", "rho"):
        return forwarded(by_loss(forward, method == "rho"), batch)
    bar = admit(curriculum) if curriculum.difficulty != "none" else None
    return aql(chosen.select, batch, chosen.length, admit=bar)
