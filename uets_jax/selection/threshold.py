"""Accepting a wanted share of a stream by a threshold that follows its scores: O(1)."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from uets_jax.component import Component
from uets_jax.errors import UserError

FIRST_GAIN = 3.0  # of the first call; near 1 / density at the 80 % quantile of a Gauss


class ThresholdState(NamedTuple):
    """A running quantile.

    calls: so far.
    theta: the threshold.
    scale: running mean of |score - theta|, in units of the scores.
    """

    calls: Int[Array, ""]
    theta: Float[Array, ""]
    scale: Float[Array, ""]


def threshold(gain: float = 0.1) -> Component:
    """A component: apply(state, scores [n], share []) -> (accepted [n], state).

    Accepts what is above theta, then moves theta towards the (1 - share) quantile:

        theta <- theta + eta * scale * (mean 1[score > theta] - share)

    (Robbins & Monro 1951). eta falls as 1 / calls down to `gain`, which tracks scores
    that drift. A score is judged before it is counted; `share` may be traced. The first
    call starts at the mean of its scores. NaN is neither accepted nor counted, -inf is
    counted.

    Args:
      gain: least eta. Scores that rise by a standard deviation in T calls raise the
        accepted share by about 1 / (gain T).

    Raises:
      UserError: gain is not in (0, 1].
    """
    if not 0 < gain <= 1:
        raise UserError(f"threshold.gain: must be above 0, at most 1, got {gain}")

    def init(params: object) -> ThresholdState:
        return ThresholdState(jnp.zeros((), jnp.int32), jnp.zeros(()), jnp.zeros(()))

    def apply(
        state: ThresholdState,
        scores: Float[Array, " n"],
        share: float | Float[Array, ""],
    ) -> tuple[Bool[Array, " n"], ThresholdState]:
        finite, counted = jnp.isfinite(scores), ~jnp.isnan(scores)
        mean = lambda x, where: (
            jnp.where(where, x, 0).sum() / jnp.maximum(where.sum(), 1)
        )
        theta = jnp.where(state.calls == 0, mean(scores, finite), state.theta)
        accepted = scores > theta
        eta = jnp.maximum(gain, FIRST_GAIN / (state.calls + 1))
        slow = jnp.maximum(gain, 1 / (state.calls + 1))
        spread = mean(jnp.abs(scores - theta), finite)
        scale = state.scale + slow * (spread - state.scale)
        moved = theta + eta * scale * (mean(accepted, counted) - share)
        fresh = ThresholdState(state.calls + 1, moved, scale)
        seen = finite.any()
        return accepted, ThresholdState(
            *(jnp.where(seen, new, old) for new, old in zip(fresh, state, strict=True))
        )

    return Component(init, apply)
