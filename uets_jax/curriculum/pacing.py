"""How hard text may be at a time: competence c in (0, 1], from traced progress.

At progress t the easiest share c(t) of the text is admitted. All functions are
`(progress, start, end) -> c`: they begin at `start` = c(0), rise, and are 1 from
`end` on; with u = min(progress / end, 1)

    linear       start + (1 - start) u
    root         (start^p + (1 - start^p) u)^(1/p), p = 2 (Platanios et al. 2019)
    exponential  start^(1 - u)
    step         linear in `levels` equal jumps
    logistic     linear in a logistic function of u, scaled to meet both ends
    fixed_root   start + (1 - start) u^(1/p), down to a multiple of 1 / levels (the
                 fixed-root schedule of DeepSpeed's data efficiency library, as a
                 share of the greatest difficulty)
    constant     1: no curriculum, the control

Everything may be traced, so one executable serves a sweep over starts and ends.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from uets_jax.errors import UserError, nearest

Number = int | float | Float[Array, ""]
Pace = Callable[[Any, Any, Any], Float[Array, ""]]


def linear(progress: Number, start: Number, end: Number) -> Float[Array, ""]:
    """A line."""
    return _rise(_share(progress, end), start)


def root(
    progress: Number, start: Number, end: Number, power: Number = 2.0
) -> Float[Array, ""]:
    """Fast first: the p-th root of a line between the p-th powers."""
    low = jnp.asarray(start, jnp.float32) ** power
    return jnp.minimum(_rise(_share(progress, end), low) ** (1.0 / power), 1.0)


def exponential(progress: Number, start: Number, end: Number) -> Float[Array, ""]:
    """Slow first: equal factors in equal times."""
    return jnp.asarray(start, jnp.float32) ** (1.0 - _share(progress, end))


def step(
    progress: Number, start: Number, end: Number, levels: Number = 4
) -> Float[Array, ""]:
    """A staircase under the line, with `levels` equal jumps."""
    return _rise(_floor(_share(progress, end), levels), start)


def logistic(
    progress: Number, start: Number, end: Number, slope: Number = 8.0
) -> Float[Array, ""]:
    """Slow, fast, slow; steepest at half of `end`."""
    low, high = (jax.nn.sigmoid(jnp.asarray(s * slope / 2.0)) for s in (-1, 1))
    now = jax.nn.sigmoid(slope * (_share(progress, end) - 0.5))
    return _rise(jnp.clip((now - low) / (high - low), 0.0, 1.0), start)


def fixed_root(
    progress: Number,
    start: Number,
    end: Number,
    power: Number = 2.0,
    levels: Number = 16,
) -> Float[Array, ""]:
    """A root of time, in whole multiples of 1 / levels; never below `start`."""
    exact = _rise(_share(progress, end) ** (1.0 / power), start)
    return jnp.maximum(_floor(exact, levels), start)


def constant(progress: Number, start: Number, end: Number) -> Float[Array, ""]:
    """1: everything is admitted at all times."""
    return jnp.ones(())


PACINGS: dict[str, Pace] = {
    "linear": linear,
    "root": root,
    "exponential": exponential,
    "step": step,
    "logistic": logistic,
    "fixed_root": fixed_root,
    "constant": constant,
}


def pacing(name: str) -> Pace:
    """The pacing function of a name.

    Raises:
      UserError: an unknown name.
    """
    if name not in PACINGS:
        raise UserError(f"pacing {name!r}: {nearest(name, PACINGS)}")
    return PACINGS[name]


def _share(progress: Number, end: Number) -> Float[Array, ""]:
    """Progress towards `end` in [0, 1]; 1 where `end` is 0."""
    end = jnp.asarray(end, jnp.float32)
    share = progress / jnp.where(end > 0, end, 1.0)
    return jnp.where(end > 0, jnp.clip(share, 0.0, 1.0), 1.0)


def _rise(share: Float[Array, ""], start: Number) -> Float[Array, ""]:
    return start + (1.0 - start) * share


def _floor(share: Float[Array, ""], levels: Number) -> Float[Array, ""]:
    """Down to a multiple of 1 / levels; a rounding error below one counts as it."""
    return jnp.floor(share * levels + 1e-4) / levels
