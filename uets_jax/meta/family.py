"""A family of small training problems, on which an update rule is learned."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from uets_jax.errors import UserError
from uets_jax.types import Params


@dataclasses.dataclass(frozen=True, eq=False)
class Family:
    """Problems of equal shapes: one compiled window serves them all.

    name:          for logs and cards.
    instance:      key -> instance, any pytree of arrays: which problem it is.
    init:          (instance, key) -> params.
    loss:          (params, instance, key, rows) -> loss of a fresh mini-batch, > 0. Of
                   its `batch` rows only the first `rows`, traced, are distinct: the
                   others repeat them, so that a smaller batch needs no other shape.
    held:          (params, instance) -> loss on data that `loss` never gives, > 0.
    batch:         rows of a mini-batch.
    horizon:       nominal number of steps.
    learning_rate: peak rate for an AdamW-like rule (updates of RMS 0.2 to 1).
    weight_decay:  decoupled.
    about:         a line for the card.
    """

    name: str
    instance: Callable[[Key[Array, ""]], Any]
    init: Callable[[Any, Key[Array, ""]], Params]
    loss: Callable[[Params, Any, Key[Array, ""], Int[Array, ""]], Float[Array, ""]]
    held: Callable[[Params, Any], Float[Array, ""]]
    batch: int
    horizon: int = 200
    learning_rate: float = 1e-2
    weight_decay: float = 0.0
    about: str = ""

    def __post_init__(self) -> None:
        for name in ("batch", "horizon", "learning_rate"):
            if not getattr(self, name) > 0:
                raise UserError(f"family {self.name}: {name} must be above 0")


class Tasks(NamedTuple):
    """train: families that theta is learned on. valid: others, that choose theta."""

    train: tuple[Family, ...]
    valid: tuple[Family, ...]


def distinct(
    rows: Int[Array, ""], batch: int, draws: Int[Array, " b"]
) -> Int[Array, " b"]:
    """`draws` with all but the first `rows` replaced by repetitions of those."""
    return draws[jnp.arange(batch) % jnp.clip(rows, 1, batch)]


def repeated(rows: Int[Array, ""], batch: int) -> Int[Array, " b"]:
    """Places 0, 1, .., rows - 1, 0, 1, ..: `batch` of them."""
    return distinct(rows, batch, jnp.arange(batch))


def cross_entropy(
    logits: Float[Array, "n k"], labels: Int[Array, " n"]
) -> Float[Array, ""]:
    """Mean over rows, in nats."""
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)
    return -picked.mean()
