"""Fresh entries of a grown leaf begin with a small learning rate, old ones go on.

Which entries are fresh is kept as one vector per axis of a leaf, so the state is tiny:
entry (i, j, ...) is fresh where any of its axes says so.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from uets_jax.component import Component
from uets_jax.types import Params


class RewarmState(NamedTuple):
    """born: step of the last growth; fresh: per leaf a tuple of vectors of 0 and 1."""

    born: Int[Array, ""]
    fresh: Any


def rewarm(steps: int) -> Component:
    """`apply(state, updates, step) -> (updates, state)`: a linear warm-up over `steps`.

    The update of a fresh entry is multiplied by min((step - born + 1) / steps, 1),
    after whatever rule made it, so that no moment is touched; weight decay and
    learning rate are in the update and warm up with it.
    """

    def init(params: Params) -> RewarmState:
        vectors = lambda p: tuple(jnp.zeros(n) for n in p.shape)
        return RewarmState(jnp.zeros((), jnp.int32), jax.tree.map(vectors, params))

    def apply(
        state: RewarmState, updates: Params, step: Int[Array, ""]
    ) -> tuple[Params, RewarmState]:
        age = (step - state.born + 1).astype(jnp.float32)
        cold = 1 - jnp.minimum(age / max(steps, 1), 1.0)
        scale = lambda u, flags: u * (1 - cold * _fresh(flags, u.ndim)).astype(u.dtype)
        return jax.tree.map(scale, updates, state.fresh), state

    return Component(init, apply)


def _fresh(flags: tuple[Array, ...], rank: int) -> Float[Array, "..."]:
    """1 where an entry is fresh, broadcast over all axes."""
    old = jnp.ones((1,) * rank)
    for axis, flag in enumerate(flags):
        old = old * (1 - flag).reshape((1,) * axis + (-1,) + (1,) * (rank - axis - 1))
    return 1 - old
