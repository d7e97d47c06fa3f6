"""Learning progress by bin: a fast and a slow mean of the loss, and their gap."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from uets_jax.component import Component


class ProgressState(NamedTuple):
    """Sums that decay with every row of a bin: of weights, losses and squares.

    weight: [2, K] total weight of the fast and of the slow mean; 0 before any row.
    loss:   [2, K] weighted losses.
    square: [K] squared deviations from the fast mean, weighted as the slow mean.
    """

    weight: Float[Array, "2 k"]
    loss: Float[Array, "2 k"]
    square: Float[Array, " k"]


class Progress(NamedTuple):
    """What the means say of each bin, in nats; 0 for a bin without any row.

    loss:  the fast mean.
    gap:   slow mean - fast mean: how much the loss fell of late; positive is learning.
    error: standard error of `gap` if the bin's losses did nothing but scatter.
    """

    loss: Float[Array, " k"]
    gap: Float[Array, " k"]
    error: Float[Array, " k"]


def learning_progress(bins: int, fast: float = 30.0, slow: float = 300.0) -> Component:
    """Tracks the losses of `bins` bins.

    apply: (state, bin of each row [B], losses [B]) -> (Progress, state). O(bins).

    Args:
      fast, slow: rows of a bin after which a mean has forgotten all but 1 / e.
    """
    keep = jnp.exp(-1.0 / jnp.array([fast, slow]))[:, None]

    def init(params: Any) -> ProgressState:
        zeros = jnp.zeros((2, bins))
        return ProgressState(zeros, zeros, jnp.zeros(bins))

    def apply(
        state: ProgressState, which: Int[Array, " b"], losses: Float[Array, " b"]
    ) -> tuple[Progress, ProgressState]:
        member = jax.nn.one_hot(which, bins)
        number, total = member.sum(0), losses @ member
        seen = jnp.maximum(number, 1.0)
        left = keep ** number[None, :]
        share = (1.0 - left) / seen[None, :]  # of each of the new rows
        weight = left * state.weight + share * number[None, :]
        loss = left * state.loss + share * total[None, :]
        means = loss / jnp.maximum(weight, 1e-12)
        apart = jnp.square(losses[:, None] - means[:1]) * member
        square = left[1] * state.square + share[1] * apart.sum(0)
        new = ProgressState(weight, loss, square)
        return read(new, fast), new

    return Component(init, apply)


def read(state: ProgressState, fast: float = 30.0) -> Progress:
    """Means, gaps and their errors from the sums of `learning_progress`.

    The error is that of the fast mean, an upper bound for the gap's: weights that
    decay by d from row to row since n rows have sum w^2 / (sum w)^2 =
    (1 - d) / (1 + d) (1 + d^n) / (1 - d^n).
    """
    weight = jnp.maximum(state.weight, 1e-12)
    recent, long = state.loss / weight
    variance = state.square / weight[1]
    decay = math.exp(-1.0 / fast)
    spread = (1 - decay) / (1 + decay) * (2.0 - weight[0]) / weight[0]
    error = jnp.sqrt(variance * jnp.clip(spread, 0.0, 1.0))
    return Progress(recent, long - recent, error)
