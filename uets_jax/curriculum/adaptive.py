"""A bandit over bins of difficulty that goes where the model learns.

After Graves et al. 2017 (arXiv:1704.03003): the reward is learning progress, not loss,
so that noise, whose loss is high and stays so, earns nothing. Where Graves rescales
single rewards by their quantiles, the means and the standard errors of a bin are kept
here, and a bin earns what its progress exceeds its error by.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from uets_jax.component import Component
from uets_jax.curriculum.progress import ProgressState, learning_progress

Number = int | float | Float[Array, ""]


class AdaptiveState(NamedTuple):
    """O(bins): the means of the losses, and the smoothed target shares."""

    progress: ProgressState
    shares: Float[Array, " k"]


def adaptive(
    bins: int,
    fast: float = 30.0,
    slow: float = 300.0,
    smoothing: float = 0.1,
) -> Component:
    """Target share of each bin in what is trained on.

    apply: (state, bin of each row [B], losses [B], temperature, floor, margin)
    -> (shares [K], state). With gap and error of `curriculum.progress`,

        reward = max(|gap| - margin error, 0),    r = reward / max reward
        shares = floor / K + (1 - floor) softmax(r / temperature)

    moved to by `smoothing` a call. A bin that is forgotten (a negative gap) earns as
    much as one that is learnt. While no bin earns, shares are equal. The last three
    inputs may be traced.

    Args:
      fast, slow: rows of a bin that the two means look back on.
    """
    track = learning_progress(bins, fast, slow)

    def init(params: Any) -> AdaptiveState:
        return AdaptiveState(track.init(params), jnp.full(bins, 1.0 / bins))

    def apply(
        state: AdaptiveState,
        which: Int[Array, " b"],
        losses: Float[Array, " b"],
        temperature: Number = 0.3,
        floor: Number = 0.2,
        margin: Number = 2.0,
    ) -> tuple[Float[Array, " k"], AdaptiveState]:
        seen, means = track.apply(state.progress, which, losses)
        reward = jnp.maximum(jnp.abs(seen.gap) - margin * seen.error, 0.0)
        level = reward / jnp.maximum(reward.max(), 1e-12)
        best = jax.nn.softmax(level / jnp.maximum(temperature, 1e-3))
        target = floor / bins + (1.0 - floor) * best
        shares = state.shares + smoothing * (target - state.shares)
        return shares, AdaptiveState(means, shares)

    return Component(init, apply)


def candidate_logits(
    shares: Float[Array, " k"], which: Int[Array, " c"]
) -> Float[Array, " c"]:
    """Logits of candidates whose bins are to be drawn with the given shares.

    log(share of its bin / candidates in its bin): a draw by these has `shares`,
    whatever the bins' shares among the candidates, as far as they are there.
    """
    present = jax.nn.one_hot(which, shares.shape[0]).sum(0)
    return jnp.log(jnp.maximum(shares, 1e-12) / jnp.maximum(present, 1.0))[which]


def bins_of(ranks: Float[Array, " n"], bins: int) -> Int[Array, " n"]:
    """Equal bins of the difficulty quantile in [0, 1]."""
    return jnp.clip((ranks * bins).astype(jnp.int32), 0, bins - 1)
