"""Learning-rate schedules over traced hyper-parameters."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from uets_jax.types import Hypers

Rate = Callable[[Hypers, Int[Array, ""]], Float[Array, ""]]


def schedule(name: str, decay: float = 0.4, floor: float = 0.0) -> Rate:
    """`(hypers, step) -> learning rate`; step counts from 0.

    All warm up linearly over `hypers.warmup` steps, then
    constant: stay; linear: fall in a line; cosine: fall along half a cosine (Loshchilov
    & Hutter 2017); wsd: stay, then fall in a line over the last `decay` share of
    `hypers.steps` (Hu et al. 2024). The end is `floor` times the peak.
    """

    def rate(hypers: Hypers, step: Int[Array, ""]) -> Float[Array, ""]:
        t = step.astype(jnp.float32)
        warm = jnp.minimum((t + 1) / jnp.maximum(hypers.warmup, 1.0), 1.0)
        start = jnp.minimum(hypers.warmup, hypers.steps)
        if name == "constant":
            left = jnp.ones(())
        elif name == "wsd":
            left = (hypers.steps - t) / jnp.maximum(decay * hypers.steps, 1.0)
        else:
            left = (hypers.steps - t) / jnp.maximum(hypers.steps - start, 1.0)
        left = jnp.clip(left, 0.0, 1.0)
        if name == "cosine":
            left = 0.5 * (1 - jnp.cos(jnp.pi * left))
        return hypers.learning_rate * warm * (floor + (1 - floor) * left)

    return rate
