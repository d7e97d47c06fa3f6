"""The k best rows of all shards, while the rows stay where they are.

Each shard sends only the scores and ids of its own best, 8 k bytes; which of its rows
are among the k best of all it is told as a mask. With rows of 2 kB that is less than a
hundredth of what moving them would take.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from uets_jax.errors import UserError

Axis = str | tuple[str, ...]


class Best(NamedTuple):
    """The best rows.

    scores, ids: best first; on every shard for `top`, k / P per shard for `stratified`.
    mask:        which rows they are; split as the rows are.
    """

    scores: Float[Array, " k"]
    ids: Int[Array, " k"]
    mask: Bool[Array, " n"]


def top(mesh: Mesh, axis: Axis, k: int) -> Callable[..., Best]:
    """best(scores [n], ids [n]) -> Best: the top k of rows that are split over `axis`.

    Equal to `jax.lax.top_k` on one device, ties by row number too: the top k of each
    shard, sorted, are gathered in the order of the shards, and of those the top k are
    taken. NaN counts as -inf.

    Args:
      mesh: its axes are Auto.
      axis: one axis or several, as in the rows' `PartitionSpec`.
      k: rows wanted.

    Raises:
      UserError: when it is called with rows that do not divide, or fewer than k.
    """
    shards = _shards(mesh, axis)

    def local(scores: Array, ids: Array) -> Best:
        rows = scores.shape[0]
        own, place = jax.lax.top_k(_ordered(scores), min(k, rows))
        sent = own, ids[place]
        held, names = (jax.lax.all_gather(x, axis, tiled=True) for x in sent)
        best, chosen = jax.lax.top_k(held, k)
        first = jax.lax.axis_index(axis) * place.shape[0]
        mine = (chosen >= first) & (chosen < first + place.shape[0])
        mask = _mask(rows, jnp.where(mine, place[(chosen - first) % len(place)], rows))
        return Best(best, names[chosen], mask)

    everywhere, split = PartitionSpec(), PartitionSpec(axis)
    spread = _spread(local, mesh, split, (everywhere, everywhere, split))

    def best(scores: Float[Array, " n"], ids: Int[Array, " n"]) -> Best:
        _check(scores.shape[0], k, shards)
        return spread(scores, ids)

    return best


def stratified(mesh: Mesh, axis: Axis, k: int) -> Callable[..., Best]:
    """As `top`, but the best k / P of each shard: equal loads, and nothing is sent.

    Not the k best of all unless each shard holds as many of them; near it where rows
    are shuffled over the shards.

    Raises:
      UserError: k does not divide; also as `top`.
    """
    shards = _shards(mesh, axis)
    if k % shards:
        raise UserError(f"sharded: k {k} does not divide by {shards} shards")

    def local(scores: Array, ids: Array) -> Best:
        own, place = jax.lax.top_k(_ordered(scores), k // shards)
        return Best(own, ids[place], _mask(scores.shape[0], place))

    split = PartitionSpec(axis)
    spread = _spread(local, mesh, split, (split, split, split))

    def best(scores: Float[Array, " n"], ids: Int[Array, " n"]) -> Best:
        _check(scores.shape[0], k, shards)
        return spread(scores, ids)

    return best


def _spread(
    local: Callable[..., Best], mesh: Mesh, split: PartitionSpec, out: tuple[Any, ...]
) -> Callable[..., Best]:
    """`local` on every shard; what is gathered is equal on all, which goes unproven."""
    return jax.shard_map(
        local, mesh=mesh, in_specs=(split, split), out_specs=Best(*out), check_vma=False
    )


def _mask(rows: int, places: Array) -> Bool[Array, " rows"]:
    """True at `places`; what is beyond the rows is left out."""
    return jnp.zeros(rows, bool).at[places].set(True, mode="drop")


def _ordered(scores: Array) -> Array:
    return jnp.where(jnp.isnan(scores), -jnp.inf, scores)


def _shards(mesh: Mesh, axis: Axis) -> int:
    names = (axis,) if isinstance(axis, str) else axis
    return int(np.prod([mesh.shape[name] for name in names]))


def _check(rows: int, k: int, shards: int) -> None:
    if rows % shards:
        raise UserError(f"sharded: {rows} rows do not divide by {shards} shards")
    if not 1 <= k <= rows:
        raise UserError(f"sharded: k {k} of {rows} rows; choose from 1 to {rows}")
