"""Running quantiles of a static feature of the stream: the edges of its bins."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LEAST_STEP = 0.01  # of the running edges, in deviations


class EdgeState(NamedTuple):
    """Edges of q + 1 bins of equal mass, ascending.

    calls:     batches seen.
    deviation: running mean of the batches' standard deviations.
    """

    calls: Float[Array, ""]
    deviation: Float[Array, ""]
    edges: Float[Array, " q"]


def init(bins: int) -> EdgeState:
    """Before the first batch; all edges are 0."""
    zero = jnp.zeros((), jnp.float32)
    return EdgeState(zero, zero, jnp.zeros(bins - 1, jnp.float32))


def update(
    state: EdgeState, values: Float[Array, " b"], least: float | Array = LEAST_STEP
) -> EdgeState:
    """One Robbins-Monro step of each edge towards its quantile.

        edge_j += step deviation (share of the values above it - (1 - j / bins)),

    step = max(2 calls^-0.6, least): O(bins) memory, no sort of the stream. The first
    batch sets the edges to those of a normal distribution with its mean and deviation.

    With `least` above 0 the edges follow a stream that drifts, and then the meaning of
    a bucket drifts, too: for a fixed one, fit the edges first and keep them.
    """
    bins = state.edges.shape[0] + 1
    below = jnp.arange(1, bins, dtype=jnp.float32) / bins
    calls = state.calls + 1
    spread = values.std()
    deviation = state.deviation + (spread - state.deviation) / jnp.minimum(calls, 100.0)
    above = (values[None] > state.edges[:, None]).mean(1)
    step = jnp.maximum(2 * calls**-0.6, least)
    moved = state.edges + step * deviation * (above - (1 - below))
    first = values.mean() + spread * jax.scipy.special.ndtri(below)
    edges = jnp.sort(jnp.where(state.calls > 0, moved, first))
    return EdgeState(calls, deviation, edges)
