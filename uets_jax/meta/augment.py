"""What makes every episode of a task a little different, so that theta generalises."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from uets_jax.errors import UserError
from uets_jax.types import Params


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Ranges; a factor f means log-uniform in [1 / f, f], and 1 turns it off.

    scale:        of all parameters: they are stored as p / s (Metz et al. 2022,
                  Celo arXiv:2501.12670). The function that is trained stays the same,
                  its gradient gets s times as large.
    tensor_scale: likewise, per tensor, on top of it.
    rate:         of the learning rate: the user's guess is off by that much.
    init:         of the initial matrices.
    batch:        least share of a mini-batch's rows that are distinct.
    horizon:      of the number of steps.
    long:         share of the episodes that go to twice the horizon.

    Raises:
      UserError: a factor below 1, or a share outside of its range.
    """

    scale: float = 2.0
    tensor_scale: float = 2.0
    rate: float = 1.5
    init: float = 1.5
    batch: float = 0.25
    horizon: float = 1.5
    long: float = 0.1

    def __post_init__(self) -> None:
        for name in ("scale", "tensor_scale", "rate", "init", "horizon"):
            if not getattr(self, name) >= 1:
                raise UserError(f"augment.{name}: a factor of 1 or more")
        if not 0 < self.batch <= 1:
            raise UserError("augment.batch: a share in (0, 1]")
        if not 0 <= self.long <= 1:
            raise UserError("augment.long: a share in [0, 1]")


PLAIN = AugmentConfig(1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0)


class Augmentation(NamedTuple):
    """What one episode has drawn.

    scales:  what each stored tensor is multiplied by, a scalar per leaf.
    init:    factor of the initial matrices.
    rate:    factor of the learning rate.
    rows:    distinct rows of a mini-batch.
    horizon: steps; a multiple of the window.
    """

    scales: Any
    init: Float[Array, ""]
    rate: Float[Array, ""]
    rows: Int[Array, ""]
    horizon: Int[Array, ""]


def augmentation(
    config: AugmentConfig,
    key: Key[Array, ""],
    like: Any,
    batch: int,
    horizon: int,
    window: int,
) -> Augmentation:
    """Draws one.

    Args:
      config: the ranges.
      key: of the draw.
      like: parameters, or their shapes.
      batch: rows of the family.
      horizon: its nominal steps.
      window: of which the horizon is made a multiple, at least one.
    """
    leaves, tree = jax.tree.flatten(like)
    # one draw: every call of the generator costs a second of compilation
    unit = jax.random.uniform(key, (6 + len(leaves),))
    whole, init, rate, steps = 2 * unit[:4] - 1
    scales = config.scale**whole * config.tensor_scale ** (2 * unit[6:] - 1)
    share = config.batch ** unit[4]
    wanted = horizon * config.horizon**steps
    double = unit[5] < config.long
    windows = jnp.round(jnp.where(double, 2 * horizon, wanted) / window)
    return Augmentation(
        jax.tree.unflatten(tree, list(scales)),
        config.init**init,
        config.rate**rate,
        jnp.clip(jnp.round(share * batch), 1, batch).astype(jnp.int32),
        window * jnp.maximum(windows, 1).astype(jnp.int32),
    )


def stored(params: Params, drawn: Augmentation) -> Params:
    """First parameters as the rule sees them: matrices times `init`, over scales."""
    size = lambda p: drawn.init if p.ndim > 1 else jnp.ones(())
    return jax.tree.map(lambda p, s: p * size(p) / s, params, drawn.scales)


def used(params: Params, drawn: Augmentation) -> Params:
    """The parameters that the network computes with."""
    return jax.tree.map(lambda p, s: p * s, params, drawn.scales)
