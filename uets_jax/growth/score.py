"""What a learned growth policy looks at, and the number it makes of it.

One implementation for both: `xp` is NumPy where a run asks on the host, `jax.numpy` in
the vectorised environment.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

FEATURES = (
    "bias",
    "progress",
    "fall",
    "uncertainty",
    "ratio",
    "age",
    "staying",
    "price",
)
START = (-0.5, 0.0, -1.0, -0.5, 0.5, 0.0, -0.5, 0.5)
"""Weights before any training: grow where little is left to gain by staying."""
_MOST_FALL, _MOST_RATIO = 4.0, 4.0


class Situation(NamedTuple):
    """Plain numbers, or arrays of one shape.

    progress: share of the steps done.
    slope, error: dL / d ln C in nats, and its standard error (inf: unknown).
    age:   share of the steps since the last change of shape.
    flops: spent so far.
    rate, next_rate, last_rate: FLOPs per step (or token) as it is, after the next
           stage, after the last one.
    left, steps: steps (or tokens) to come, and of the whole run.
    cost:  nats that the FLOPs of a run at the last stage's size are worth.
    """

    progress: Any
    slope: Any
    error: Any
    age: Any
    flops: Any
    rate: Any
    next_rate: Any
    last_rate: Any
    left: Any
    steps: Any
    cost: Any


def features(s: Situation, xp: Any = jnp) -> Any:
    """[..., F] in the order of `FEATURES`; without dimension, or in nats.

    All are bounded but the last:

        fall         -dL / d ln C, in [-4, 4]
        uncertainty  error / (error + |slope|), in [0, 1]; 1 where the error is inf
        ratio        rate / next rate, at most 4
        staying      fall * ln((flops + rate left) / flops), the gain of going on as it
                     is, in [0, 4]
        price        cost * (next rate - rate) left / (steps * last rate); negative
                     where the next stage is cheaper
    """
    fall = xp.clip(-s.slope, -_MOST_FALL, _MOST_FALL)
    known = xp.abs(s.slope) / xp.maximum(s.error, 1e-9)
    there = xp.maximum(s.flops, s.rate)
    staying = xp.maximum(fall, 0.0) * xp.log1p(s.rate * s.left / there)
    price = s.cost * (s.next_rate - s.rate) * s.left / (s.steps * s.last_rate)
    found = (
        xp.ones_like(fall),
        s.progress,
        fall,
        1.0 / (1.0 + known),
        xp.minimum(s.rate / s.next_rate, _MOST_RATIO),
        s.age,
        xp.minimum(staying, _MOST_FALL),
        price,
    )
    return xp.stack([xp.asarray(x, fall.dtype) for x in found], axis=-1)


def score(weights: Any, seen: Any, xp: Any = jnp) -> Any:
    """Above 0: take the next stage.

    Linear in the features `seen` [..., F]. The weight of the price is -softplus of the
    last entry of `weights` [F], hence below 0: since all else is bounded, a policy
    refuses every stage that costs anything once the cost is high enough.
    """
    weights = xp.asarray(weights)
    price = -xp.logaddexp(0.0, weights[-1:])
    return seen @ xp.concatenate([weights[:-1], price])
