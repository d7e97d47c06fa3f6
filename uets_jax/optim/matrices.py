"""Which leaves are matrices, and leaves as matrices: [*batch, inputs, outputs]."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from uets_jax.types import Params

Axes = tuple[tuple[int, ...], tuple[int, ...]]  # (input axes, output axes)

# params -> a tree of `Axes` or None, one per leaf
Matrices = Callable[[Params], Any]


def is_axes(x: Any) -> bool:
    """A leaf of a `Matrices` tree: None or a pair of axis tuples."""
    if x is None:
        return True
    pair = isinstance(x, tuple) and len(x) == 2
    return pair and all(isinstance(axes, tuple) for axes in x)


def map_matrices(fn: Callable[[Axes | None], Any], tree: Any) -> Any:
    """`fn` of every leaf of a `Matrices` tree."""
    return jax.tree.map(fn, tree, is_leaf=is_axes)


def sizes(shape: tuple[int, ...], axes: Axes) -> tuple[int, int]:
    """Inputs and outputs of a matrix."""
    inputs, outputs = (math.prod(shape[a] for a in side) for side in axes)
    return inputs, outputs


def batch_axes(rank: int, axes: Axes) -> tuple[int, ...]:
    """Axes along which matrices are stacked: layers, experts."""
    return tuple(a for a in range(rank) if a not in (*axes[0], *axes[1]))


def to_matrices(x: Array, axes: Axes) -> Float[Array, "*batch m n"]:
    """A leaf as a stack of matrices."""
    stacked = batch_axes(x.ndim, axes)
    batch = tuple(x.shape[a] for a in stacked)
    turned = jnp.transpose(x, (*stacked, *axes[0], *axes[1]))
    return turned.reshape(*batch, *sizes(x.shape, axes))


def from_matrices(m: Array, axes: Axes, shape: tuple[int, ...]) -> Array:
    """The inverse of `to_matrices` for a leaf of this shape."""
    order = (*batch_axes(len(shape), axes), *axes[0], *axes[1])
    turned = m.reshape(*(shape[a] for a in order))
    return jnp.transpose(turned, [order.index(a) for a in range(len(shape))])


def wide(dtype: Any) -> Any:
    """The dtype to accumulate in: float32, or the parameter's where that is wider."""
    return jnp.promote_types(dtype, jnp.float32)
