"""What the gate sees of a layer of a leaf: 25 numbers without a scale of their own."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from uets_jax.optim.directions import Moments
from uets_jax.optim.leaves import ROLES, Leaf
from uets_jax.optim.norms import TINY, cosine, mean_square, safe_rsqrt, safe_sqrt

KNOTS = (0.03, 0.1, 0.25, 0.5, 0.75, 0.9)  # shares of the run
DECAYS = (0.9, 0.97, 0.99)  # of the moving means of the loss
WARM_UP = 10  # losses before one can be a divergence
FORGET = 0.02  # of the way from the least mean to the present one, each step
QUIET = 0.97  # decay of the noise; a loss counts for at most three times of it
PROGRESS = (*(f"progress_{knot}" for knot in KNOTS), "progress_known", "age")
NAMES = (
    "gradient_to_weight",
    "signal_to_noise",
    "gradient_momentum",
    "momentum_update",
    "update_to_weight",
    "weight_to_start",
    "fan_in",
    "fan_out",
    *ROLES,
    "depth",
    *PROGRESS,
    "loss_fast",
    "loss_slow",
    "loss_above_low",
    "rate",
)


class LossState(NamedTuple):
    """Moving means of the loss at `DECAYS` (not debiased), the least debiased fast one
    that is not forgotten, the mean distance of a loss to the fast mean before it, and
    how many losses were seen.
    """

    means: Float[Array, " 3"]
    low: Float[Array, ""]
    noise: Float[Array, ""]
    seen: Int[Array, ""]


def no_losses() -> LossState:
    """Before the first loss."""
    zero = jnp.zeros(())
    return LossState(jnp.zeros(3), zero, zero, jnp.zeros((), jnp.int32))


def see_loss(state: LossState, value: Float[Array, ""]) -> LossState:
    """The state after one more loss.

    The least mean is forgotten at `FORGET` a step, so that a loss which has risen for
    good (other data) is no divergence for ever.
    """
    decays, value = jnp.asarray(DECAYS), value.astype(jnp.float32)
    means = decays * state.means + (1 - decays) * value
    seen = state.seen + 1
    before, fast = _debiased(state.means, state.seen)[0], _debiased(means, seen)[0]
    warm, risen = state.seen >= WARM_UP, state.low + FORGET * (fast - state.low)
    low = jnp.where(warm, jnp.minimum(risen, fast), fast)
    far = jnp.where(state.seen > 0, jnp.abs(value - before), 0.0)
    most = jnp.minimum(far, 3 * state.noise)
    mean = QUIET * state.noise + (1 - QUIET) * most
    noise = jnp.where(warm, mean, jnp.maximum(far, state.noise))
    return LossState(means, low, noise, seen)


def _debiased(means: Float[Array, " 3"], seen: Int[Array, ""]) -> Float[Array, " 3"]:
    mass = 1 - jnp.asarray(DECAYS) ** jnp.maximum(seen, 1).astype(jnp.float32)
    return means / mass


def diverges(state: LossState, ratio: float) -> Array:
    """Whether the fast mean is `ratio` times its least value, or more.

    Of negative losses: above it by (ratio - 1) of its size. Near 0, where that is
    little, it must also be above by what single losses are off.
    """
    above = jnp.maximum((ratio - 1) * jnp.abs(state.low), state.noise)
    limit = state.low + above
    return (state.seen >= WARM_UP) & (_debiased(state.means, state.seen)[0] > limit)


def loss_trend(state: LossState) -> Float[Array, " 3"]:
    """Fast against middle, middle against slow, fast above the least; 0: no losses."""
    fast, middle, slow = _debiased(state.means, state.seen)
    pairs = jnp.stack([fast - middle, middle - slow, fast - state.low])
    sizes = jnp.stack([middle, slow, state.low])
    return jnp.tanh(10 * pairs / (jnp.abs(sizes) + 1e-8))


def shared(
    losses: LossState | None,
    progress: Float[Array, ""] | None,
    rate: Float[Array, ""] | None,
    steps: Int[Array, ""],
) -> Float[Array, " 12"]:
    """What is the same for all leaves; None: not known, neutral.

    Args:
      losses: so far.
      progress: share of the run that is done.
      rate: the learning rate over its greatest so far.
      steps: so far. Linear in their logarithm, a log of 1 - b1 makes a memory that
        grows as a power of time, whatever the length of the run.
    """
    knots = jnp.asarray(KNOTS)
    done = jnp.zeros(7)
    if progress is not None:
        done = jnp.append(jnp.tanh(10 * (progress - knots)), 1.0)
    trend = jnp.zeros(3) if losses is None else loss_trend(losses)
    falls = 0.0 if rate is None else jnp.log(jnp.maximum(rate, 1e-4)) / 5
    age = jnp.log1p(jnp.asarray(steps, jnp.float32)) / 5
    parts = [done, age[None], trend, jnp.reshape(falls, 1)]
    return jnp.concatenate(parts).astype(jnp.float32)


def of_leaf(
    leaf: Leaf,
    g: Float[Array, "l ..."],
    p: Float[Array, "l ..."],
    moments: Moments,
    last: Float[Array, "l ..."],
    start: Float[Array, " l"],
    common: Float[Array, " 12"],
) -> Float[Array, "l 25"]:
    """One row of `NAMES` for each layer, before this gradient entered the moments.

    Args:
      leaf: the parameter.
      g: its gradient, as rows.
      p: itself, as rows.
      moments: before.
      last: the update before.
      start: RMS of the first weights.
      common: of `shared`.
    """
    weight, n = mean_square(p), leaf.layers
    noise = moments.nu.reshape(n, -1).mean(1) if p.size else jnp.zeros(n)
    signal = safe_sqrt(mean_square(moments.mu)) * safe_rsqrt(noise)
    own = [
        _log_ratio(mean_square(g), weight),
        jnp.minimum(signal, 4.0),
        cosine(g, moments.mu),
        cosine(moments.mu, last),
        _log_ratio(mean_square(last), weight),
        _log_ratio(weight, start * start),
        *(jnp.full(n, math.log(max(fan, 1)) / 5 - 1) for fan in leaf.fans),
        *(jnp.full(n, float(leaf.role == role)) for role in ROLES),
        jnp.linspace(0.0, 1.0, n) if leaf.stacked and n > 1 else jnp.full(n, 0.5),
    ]
    given = jnp.broadcast_to(common[None], (n, common.size))
    return jnp.concatenate([jnp.stack(own, 1), given], 1)


def _log_ratio(a: Float[Array, " l"], b: Float[Array, " l"]) -> Float[Array, " l"]:
    """log of the ratio of two RMS values from their squares, within +-2."""
    return jnp.clip(0.5 * (jnp.log(a + TINY) - jnp.log(b + TINY)), -10.0, 10.0) / 5
