"""Schedule-free learning: steps at a point between an iterate and its average."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from uets_jax.optim.matrices import wide
from uets_jax.types import Params


class ScheduleFreeState(NamedTuple):
    """ahead: z - y, mirrors params; the weights of the average so far."""

    ahead: Params
    weights: Float[Array, ""]
    largest: Float[Array, ""]


def schedule_free(
    learning_rate: float, b1: float = 0.9
) -> optax.GradientTransformationExtraArgs:
    """Turns the steps s of whatever is chained before it into those of y.

    z' = z + s,  x' = (1 - c) x + c z',  y' = b1 x' + (1 - b1) z'

    Gradients are taken at y, the parameters of the training loop; x is the model, which
    `averaged` reads; c is the share of this step in the sum of the squares of the
    largest learning rates so far. The rule before must have no momentum; decay at y is
    its business, and the schedule should warm up and stay.

    Kept is d = z - y, which needs no parameters and grows as differences of parameters
    do; x = y - d (1 - b1) / b1.

    Args:
      learning_rate: where `update` is given none as an extra argument.
      b1: share of the average in y, above 0.

    Source: Defazio et al. 2024, "The Road Less Scheduled" (arXiv:2405.15682); the
    weights are those of `optax.contrib.schedule_free`.
    """

    def init(params: Params) -> ScheduleFreeState:
        zeros = lambda p: jnp.zeros(p.shape, wide(p.dtype))
        ahead = jax.tree.map(zeros, params)
        return ScheduleFreeState(ahead, jnp.zeros(()), jnp.zeros(()))

    def update(updates, state, params=None, **extra):
        rate = jnp.asarray(extra.get("learning_rate", learning_rate), jnp.float32)
        largest = jnp.maximum(state.largest, rate)
        weights = state.weights + largest**2
        share = jnp.where(weights > 0, largest**2 / jnp.maximum(weights, 1e-30), 0.0)

        def move(s, d):
            """(y' - y, z' - y'); all points are seen from y."""
            c, z = share.astype(d.dtype), d + s.astype(d.dtype)
            x = c * z - (1 - c) * d * ((1 - b1) / b1)
            return (b1 * x + (1 - b1) * z).astype(s.dtype), b1 * (z - x)

        moved = jax.tree.map(move, updates, state.ahead)
        steps, ahead = (
            jax.tree.map(lambda _, pair, i=i: pair[i], updates, moved) for i in (0, 1)
        )
        return steps, ScheduleFreeState(ahead, weights, largest)

    return optax.GradientTransformationExtraArgs(init, update)


def averaged(b1: float = 0.9) -> Callable[[Params, Any], Params]:
    """`(params y, optimizer's state) -> x`, the average: the model that is evaluated.

    The state may hold that of `schedule_free` anywhere; without one params come back.
    """

    def read(params: Params, opt: Any) -> Params:
        is_own = lambda x: isinstance(x, ScheduleFreeState)
        found = [s for s in jax.tree.leaves(opt, is_leaf=is_own) if is_own(s)]
        if not found:
            return params
        behind = lambda y, d: (y - d * ((1 - b1) / b1)).astype(y.dtype)
        return jax.tree.map(behind, params, found[0].ahead)

    return read
