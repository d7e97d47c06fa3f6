"""How fast the loss falls per log-FLOP, and how sure that is, from constant memory.

A weighted line of the loss on x = ln(FLOPs), whose weights forget: the sums that it
needs are kept about their own means, and these as distances from the latest point, so
that float32 is enough at any number of FLOPs.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Number = Float[Array, ""] | float
_SPARE = 1e-5  # share of the weight below which no freedom is left for residuals


class SlopeState(NamedTuple):
    """Sums over the points so far, of weight w or w^2 each.

    points: number of points.
    last:   FLOPs at the latest one, where x is 0.
    weight: sum of w.
    x, y:   means of ln(FLOPs) and of the loss under w.
    xx, xy, yy: sums of w dx dx, w dx dy, w dy dy about these means.
    weight2, x2, xx2: the first, the mean and the square of x again, under w^2.
    """

    points: Int[Array, ""]
    last: Float[Array, ""]
    weight: Float[Array, ""]
    x: Float[Array, ""]
    y: Float[Array, ""]
    xx: Float[Array, ""]
    xy: Float[Array, ""]
    yy: Float[Array, ""]
    weight2: Float[Array, ""]
    x2: Float[Array, ""]
    xx2: Float[Array, ""]


class Slope(NamedTuple):
    """dL / d ln C in nats per factor e of FLOPs, negative while learning, and its
    standard error."""

    slope: Float[Array, ""]
    error: Float[Array, ""]


def init() -> SlopeState:
    """No point yet; after a change of the model, start here again."""
    zero = jnp.zeros((), jnp.float32)
    return SlopeState(jnp.zeros((), jnp.int32), *[zero] * 10)


def update(
    state: SlopeState,
    flops: Number,
    loss: Number,
    window: float = 1.0,
    decay: float = 1.0,
) -> SlopeState:
    """One point more. O(1); a point that is not finite changes nothing.

    Args:
      flops: spent so far, rising from call to call.
      loss: in nats; of one step, or a mean over as many steps each time.
      window: a point weighs (C / C_now)^(1 / window), so that forgetting keeps pace
        with ln C. At 1 and equal FLOPs per step, half of the weight lies in the latest
        29 % of the steps (1 - 2^(-1 / (1 + 1 / window))).
      decay: times this at every call; below 1 about 1 / (1 - decay) points remain.
    """
    flops, y = jnp.asarray(flops, jnp.float32), jnp.asarray(loss, jnp.float32)
    gap = jnp.where(state.points > 0, jnp.log(flops / state.last), 0.0)
    keep = decay * jnp.exp(-jnp.maximum(gap, 0.0) / window)
    w, w2 = keep * state.weight + 1.0, keep * keep * state.weight2 + 1.0
    dx, dy, dx2 = gap - state.x, y - state.y, gap - state.x2
    new = SlopeState(
        points=state.points + 1,
        last=flops,
        weight=w,
        x=dx / w - dx,
        y=state.y + dy / w,
        xx=keep * state.xx + (1.0 - 1.0 / w) * dx * dx,
        xy=keep * state.xy + (1.0 - 1.0 / w) * dx * dy,
        yy=keep * state.yy + (1.0 - 1.0 / w) * dy * dy,
        weight2=w2,
        x2=dx2 / w2 - dx2,
        xx2=keep * keep * state.xx2 + (1.0 - 1.0 / w2) * dx2 * dx2,
    )
    usable = jnp.isfinite(gap) & jnp.isfinite(y) & jnp.isfinite(flops) & (flops > 0)
    return SlopeState(
        *(jnp.where(usable, n, o) for n, o in zip(new, state, strict=True))
    )


def read(state: SlopeState) -> Slope:
    """The slope xy / xx and its standard error; inf before three different points.

    For independent noise of one variance s^2 around the line, and weights that say how
    much a point matters and not how noisy it is, with Q = sum w^2 (x - mean_w x)^2,

        Var(slope) = s^2 Q / xx^2,
        E[sum w residual^2] = s^2 (sum w - sum w^2 / sum w - Q / xx),

    of which the second gives s^2 (generalised least squares; with equal weights the
    textbook formula). Where the curve bends inside the window, the residuals hold the
    bend, too, and the slope is an older one: of L = E + A C^-a at equal FLOPs per step
    it is the present -a A C^-a times (1 - a / r)^-2, r = 1 + 1 / window, as it was
    about 2 / r nats of ln C ago.
    """
    there = state.xx > 0
    xx = jnp.where(there, state.xx, 1.0)
    slope = jnp.where(there, state.xy / xx, 0.0)
    spread = state.xx2 + state.weight2 * jnp.square(state.x2 - state.x)
    weight = jnp.maximum(state.weight, 1.0)
    freedom = weight - state.weight2 / weight - spread / xx
    sure = there & (state.points > 2) & (freedom > _SPARE * weight)
    residual = jnp.maximum(state.yy - slope * state.xy, 0.0)
    variance = residual / jnp.where(sure, freedom, 1.0)
    error = jnp.sqrt(variance * spread) / xx
    return Slope(slope, jnp.where(sure, error, jnp.inf))


def bottleneck(slope: float, error: float, threshold: float) -> bool:
    """Whether more FLOPs surely buy too little: even one standard error more of the
    slope leaves the fall below `threshold`.

    Args:
      slope, error: of `read`, as host numbers.
      threshold: nats that the loss has to fall by while the FLOPs spent grow by a
        factor e (`growth.slope`).
    """
    return max(-slope, 0.0) + error < threshold
