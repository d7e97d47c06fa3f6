"""Fresh entries of a grown leaf begin with a small learning rate, old ones go on.

When an entry was born is kept as one vector per axis of a leaf, so the state is tiny:
entry (i, j, ...) was born at the latest of the steps that its axes say.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from uets_jax.component import Component
from uets_jax.types import Params

OLD = -(2**30)  # born long before the first step


class RewarmState(NamedTuple):
    """born: per leaf a tuple of vectors, the step of the growth that an entry is of."""

    born: Any


def rewarm(steps: int, trained: Callable[[Params], Any] | None = None) -> Component:
    """`apply(state, updates, step) -> (updates, state)`: a linear warm-up over `steps`.

    The update of an entry born at step b is multiplied by min((step - b + 1) / steps,
    1), after whatever rule made it, so that no moment is touched; weight decay and
    learning rate are in the update and warm up with it.

    Args:
      steps: of the warm-up.
      trained: params -> a tree of bools like them, False: not looked at; None: all are.
    """

    def init(params: Params) -> RewarmState:
        vectors = lambda p: tuple(jnp.full(n, OLD, jnp.int32) for n in p.shape)
        return RewarmState(jax.tree.map(vectors, params))

    def apply(
        state: RewarmState, updates: Params, step: Int[Array, ""]
    ) -> tuple[Params, RewarmState]:
        def scale(update, born, wanted=True):
            if not wanted:
                return update
            age = (step - _latest(born, update.ndim) + 1).astype(jnp.float32)
            share = jnp.clip(age / max(steps, 1), 0.0, 1.0)
            return update * share.astype(update.dtype)

        wanted = () if trained is None else (trained(updates),)
        return jax.tree.map(scale, updates, state.born, *wanted), state

    return Component(init, apply)


def warm(state: RewarmState) -> RewarmState:
    """As if every entry had been there for long."""
    return RewarmState(jax.tree.map(lambda x: jnp.full_like(x, OLD), state.born))


def _latest(born: tuple[Array, ...], rank: int) -> Int[Array, "..."]:
    """The step at which each entry was born, broadcast over all axes."""
    latest = jnp.full((1,) * rank, OLD, jnp.int32)
    for axis, steps in enumerate(born):
        shape = (1,) * axis + (-1,) + (1,) * (rank - axis - 1)
        latest = jnp.maximum(latest, steps.reshape(shape))
    return latest
