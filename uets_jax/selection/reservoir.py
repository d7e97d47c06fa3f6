"""A uniform sample of an endless stream, for a validation set that is not selected."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, PyTree

from uets_jax.component import Component
from uets_jax.errors import UserError

MOST = 2**30  # rows that are counted; later ones enter as if they were the 2^30-th


class ReservoirState(NamedTuple):
    """The first min(seen, capacity) places are a sample of what was seen.

    seen: rows so far.
    rows: every leaf has the leading axis `capacity`.
    """

    seen: Int[Array, ""]
    rows: PyTree


def reservoir(capacity: int, row: PyTree) -> Component:
    """A component: apply(state, rows [c, ...], valid [c], key) -> (place [c], state).

    Algorithm R (Vitter 1985), many rows at once: row t of the stream, counted from 1,
    takes place t - 1 while there is room, afterwards a place drawn from 0 .. t - 1 if
    that is below the capacity. Each row that was seen is in the sample with probability
    capacity / seen, as if the rows came one by one. `place` is where a row now stands,
    `capacity` if it was left out. Written are only the rows that enter.

    Args:
      capacity: rows that are held.
      row: one row: arrays, or their shapes and dtypes, without the leading axis.

    Raises:
      UserError: capacity is below 1.
    """
    if capacity < 1:
        raise UserError(f"reservoir.capacity: must be at least 1, got {capacity}")

    def init(params: object) -> ReservoirState:
        rows = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), row)
        return ReservoirState(jnp.zeros((), jnp.int32), rows)

    def apply(
        state: ReservoirState,
        rows: PyTree,
        valid: Bool[Array, " c"],
        key: Key[Array, ""],
    ) -> tuple[Int[Array, " c"], ReservoirState]:
        order = jnp.arange(valid.shape[0])
        number = jnp.minimum(state.seen + jnp.cumsum(valid), MOST)
        drawn = jax.random.randint(key, order.shape, 0, jnp.maximum(number, 1))
        wanted = jnp.where(number <= capacity, number - 1, drawn)
        wanted = jnp.where(valid & (wanted < capacity), wanted, capacity)
        last = jnp.full(capacity + 1, -1).at[wanted].max(order)
        place = jnp.where(last[wanted] == order, wanted, capacity)
        write = lambda old, new: old.at[place].set(new, mode="drop")
        seen = jnp.minimum(state.seen + valid.sum(), MOST)
        return place, ReservoirState(seen, jax.tree.map(write, state.rows, rows))

    return Component(init, apply)
