"""Carries out moves on arrays: parameters, and whatever an optimizer keeps beside them.

Pure, so that growing is one compiled call with the shardings of the new shapes.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from uets_jax.growth.plan import FRESH, AxisMove, Move, Moves, Path
from uets_jax.models.axes import names
from uets_jax.types import Params

Moments = Literal["carry", "template", "reset"]

# Last name of a state's field before a parameter's path: squares of gradients.
SECOND = (
    "nu",
    "nu_max",
    "v",
    "v_row",
    "v_col",
    "e_g",
    "sum_of_squares",
    "second",
    "nu_hat",
    "preconditioner_sq",
)
# Last name of a field of differences of parameters, which move as parameters do.
DIFFERENCES = ("ahead",)
NOISE = 0.3  # of split copies, in standard deviations of the leaf
LEAST_NOISE = 0.01  # where the leaf is zero


def move_params(
    moves: Moves, old: Params, fresh: Params, key: Key[Array, ""]
) -> Params:
    """The parameters of the new shapes.

    Args:
      moves: of every leaf of `fresh`, by path.
      old: parameters before.
      fresh: initial parameters of the new shapes, for entries that come from nowhere.
      key: of the noise that parts two halves.
    """
    have = by_path(old)

    def make(path: Any, new: Array) -> Array:
        move = moves[names(path)]
        if move.old is None:
            return new
        noise = jax.random.fold_in(key, _number(names(path)))
        return moved_leaf(move, have[move.old], new, noise)

    return jax.tree_util.tree_map_with_path(make, fresh)


def by_path(tree: Any) -> dict[Path, Array]:
    """The leaves of a tree by the names along their path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {names(path): leaf for path, leaf in leaves}


def _number(path: Path) -> int:
    """Of a leaf, the same in every process."""
    return int.from_bytes("/".join(path).encode()[-4:], "big") % 2**31


def moved_leaf(move: Move, old: Array, fresh: Array, key: Key[Array, ""]) -> Array:
    """A leaf of the new shape: gathered, scaled, completed, its halves parted."""
    x = old if move.insert is None else jnp.expand_dims(old, move.insert)
    noise = _noise(move, x, key)
    for axis, m in move.axes:
        x = _along(gather(x, m, axis), m.scale, axis)
    x = x if noise is None else x + noise
    begun = jnp.zeros_like(fresh) if move.zero else fresh
    return jnp.where(came_from(move, fresh.shape), x, begun).astype(fresh.dtype)


def _noise(move: Move, x: Array, key: Key[Array, ""]) -> Array | None:
    """What parts copies, in their new places: each pair has a draw of its own, added to
    one and taken from the other, so that all of them sum up to 0.
    """
    signs = {abs(s) for _, m in move.axes for s in m.sign} - {0}
    if not signs:
        return None
    size = jnp.maximum(NOISE * jnp.std(x), LEAST_NOISE)
    total = jnp.zeros(())
    for pair in sorted(signs):
        draw = jax.random.normal(jax.random.fold_in(key, pair), x.shape, x.dtype)
        part = size * draw
        for axis, m in move.axes:
            mine = tuple(np.sign(s) if abs(s) == pair else 0 for s in m.sign)
            part = _along(gather(part, m, axis), mine, axis)
        total = part if total.ndim == 0 else total + part
    return total


def gather(x: Array, move: AxisMove, axis: int) -> Array:
    """Old entries in their new places; those that come from nowhere hold entry 0."""
    source = np.maximum(np.asarray(move.source, np.int32), 0)
    if source.ndim == 1:
        return jnp.take(x, source, axis=axis)
    shape = [1] * x.ndim
    shape[0], shape[axis] = source.shape
    return jnp.take_along_axis(x, source.reshape(shape), axis=axis)


def _along(x: Array, factors: tuple[Any, ...], axis: int) -> Array:
    """Times a factor per entry of an axis; none: as it is."""
    if not factors:
        return x
    shape = [1] * x.ndim
    shape[axis] = len(factors)
    return x * np.asarray(factors, x.dtype).reshape(shape)


def came_from(move: Move, shape: tuple[int, ...]) -> np.ndarray:
    """True where an entry of the new leaf comes from an old one."""
    return _everywhere(move, shape, lambda m: np.asarray(m.source) != FRESH)


def carried(move: Move, shape: tuple[int, ...]) -> np.ndarray:
    """True where its moments do, too."""

    def kept(m: AxisMove) -> np.ndarray:
        known = np.asarray(m.source) != FRESH
        return known & (np.asarray(m.grad) != 0) if m.grad else known

    return _everywhere(move, shape, kept)


def _everywhere(move: Move, shape: tuple[int, ...], kept: Any) -> np.ndarray:
    found = np.ones(shape, bool)
    for axis, m in move.axes:
        if np.ndim(m.source) == 1:
            place = [1] * len(shape)
            place[axis] = shape[axis]
            found &= kept(m).reshape(place)
    return found


def new_entries(move: Move, shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """For each axis 1.0 where an entry is to be warmed up."""
    flags = [np.zeros(n, np.float32) for n in shape]
    if move.old is None:
        return tuple(np.ones(n, np.float32) for n in shape)
    for axis, m in move.axes:
        if m.new:
            flags[axis] = np.asarray(m.new, np.float32)
    return tuple(flags)


class Moved(NamedTuple):
    """A state in the new shapes, and the leaves that had to begin anew."""

    state: Any
    begun: tuple[str, ...]


def move_state(
    moves: Moves,
    depths: tuple[int, int],
    old: Any,
    fresh: Any,
    shapes: Mapping[Path, tuple[tuple[int, ...], tuple[int, ...]]],
    moments: Moments = "carry",
    copies: frozenset[Path] = frozenset(),
    weights: Mapping[Path, Array] = MappingProxyType({}),
) -> Moved:
    """An optimizer's or a component's state in the new shapes.

    A leaf whose path ends in that of a parameter and that has its shape moves as the
    parameter does. One that has sizes 1 in the place of some of its axes, or axes of
    its own behind them, moves along the axes that are the parameter's, without the
    factors of a gradient. One that has but its layers, or no parameter's path and as
    many rows as there are layers, moves along the layers. One that keeps its shape is
    carried. What belongs to a parameter that was not there before is as initialised.
    Of a copy of a parameter, such as an average of it, the distance from it moves as
    differences of parameters do: fresh entries are those of the new parameter.
    Whatever is left begins anew, and is named.

    Args:
      moves: of the parameters, by path.
      depths: layers before and after.
      old: the state before.
      fresh: the state of the new shapes as initialised, the template.
      shapes: old and new shape of every parameter, by its new path.
      moments: "carry" fills second moments that come from nowhere with their leaf's
        mean, "template" leaves them as initialised.
      copies: paths of leaves that hold parameters, of `growth.copies.weight_copies`;
        in `fresh` they hold the new ones.
      weights: the old parameters, by path; a copy of one that is not there begins anew.
    """
    have, begun = by_path(old), []
    layers = _layer_move(moves)

    def make(path: Any, new: Array) -> Array:
        where = names(path)
        end = next((where[i:] for i in range(len(where)) if where[i:] in moves), ())
        prefix, move = where[: len(where) - len(end)], moves.get(end)
        if move is not None and move.old is None:
            return new
        changed = move is not None and (move.axes or move.insert is not None)
        if move is not None:
            was = have.get((*prefix, *(move.old or ())))
            if where in copies and changed:
                weight = weights.get(move.old or ())
                if was is not None and weight is not None:
                    return _moved_copy(move, weight, was, new)
                begun.append("/".join(where))
                return new
            along = (
                None
                if was is None
                else _along_parameter(move, (was.shape, new.shape), shapes[end])
            )
            if along is not None:
                return _moved_moment(along, was, new, prefix, moments)
        was = have.get(where)
        if was is None and move is not None:  # the parameter had another name
            was = have.get((*prefix, *(move.old or ())))
        if was is not None and was.shape == new.shape and was.dtype == new.dtype:
            return was
        if layers is not None and was is not None and was.ndim == new.ndim > 0:
            rows = (was.shape[0], new.shape[0])
            if rows == depths and was.shape[1:] == new.shape[1:]:
                return _moved_moment(layers, was, new, prefix, moments)
        begun.append("/".join(where))
        return new

    state = jax.tree_util.tree_map_with_path(make, fresh)
    return Moved(state, tuple(begun))


def shapes_of(moves: Moves, old: Params, new: Params) -> dict[Path, Any]:
    """Old (None: there was none) and new shape of every parameter, by its new path."""
    had, have = by_path(old), by_path(new)
    return {
        path: (had[move.old].shape if move.old else None, have[path].shape)
        for path, move in moves.items()
    }


def _layer_move(moves: Moves) -> Move | None:
    """What happens to something that is kept for each layer."""
    for move in moves.values():
        along = [(axis, m) for axis, m in move.axes if axis == 0]
        if move.old and "blocks" in move.old and along and not move.zero:
            return Move(move.old, tuple(along))
    return None


def _along_parameter(
    move: Move,
    leaf: tuple[tuple[int, ...], tuple[int, ...]],
    parameter: tuple[tuple[int, ...], tuple[int, ...]],
) -> Move | None:
    """How a leaf moves beside its parameter, from both old and new shapes; or None."""
    if leaf == parameter:
        return move
    (was, new), (had, has) = leaf, parameter
    if move.insert is not None:
        put = lambda shape: (*shape[: move.insert], 1, *shape[move.insert :])
        was, had = put(was), put(had)
    rank = len(has)
    if len(was) != len(new) or len(new) < rank or was[rank:] != new[rank:]:
        return None
    pairs, its = (list(zip(*p, strict=True)) for p in ((was, new), (had, has)))
    mine = [a == b for a, b in zip(pairs[:rank], its, strict=True)]
    if any(pair != (1, 1) for pair, own in zip(pairs, mine, strict=False) if not own):
        return None
    kept = lambda m: dataclasses.replace(m, grad=tuple(float(g != 0) for g in m.grad))
    return dataclasses.replace(
        move, axes=tuple((axis, kept(m)) for axis, m in move.axes if mine[axis])
    )


def _moved_copy(move: Move, weight: Array, old: Array, fresh: Array) -> Array:
    """The new parameter less what its old copy was behind, which moves as differences
    of parameters do.
    """
    behind = weight.astype(old.dtype) - old
    return fresh - _moved_moment(
        move, behind, jnp.zeros_like(fresh), DIFFERENCES[:1], "template"
    )


def _moved_moment(
    move: Move, old: Array, fresh: Array, prefix: Path, moments: Moments
) -> Array:
    """First moments follow the gradient, second ones its square, differences of
    parameters the parameters.
    """
    field = prefix[-1] if prefix else ""
    second, difference = field in SECOND, field in DIFFERENCES
    x = old if move.insert is None else jnp.expand_dims(old, move.insert)
    for axis, m in move.axes:
        x = gather(x, m, axis)
        factors = tuple(g * g for g in m.grad) if second else m.grad
        factors = m.scale if difference else factors
        x = _along(x, factors, axis) if jnp.issubdtype(x.dtype, jnp.floating) else x
    kept = came_from(move, fresh.shape) if difference else carried(move, fresh.shape)
    if kept.all():
        return x.astype(fresh.dtype)
    begun = fresh
    if second and moments == "carry":
        mean = jnp.where(kept, x, 0).sum() / max(int(kept.sum()), 1)
        begun = jnp.full_like(fresh, mean)
    return jnp.where(kept, x, begun).astype(fresh.dtype)
