"""Coordinate search over grids: which setting to try next, given the trials so far.

Pure, so that a queue of runs can ask again after every trial, in any process.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

from uets_jax.errors import UserError

Point = tuple[int, ...]  # one place per axis, in the order of the axes


@dataclasses.dataclass(frozen=True)
class Axis:
    """A setting and its grid.

    name:   of the setting.
    values: from small to large, or names.
    start:  place of the first trial.
    closed: nothing lies below the first value (a share of 0, an unordered name), so a
      best value there is not on an edge; likewise `closed_above`.
    """

    name: str
    values: tuple[Any, ...]
    start: int
    closed: bool = False
    closed_above: bool = False


Losses = Mapping[Point, float | None]


def start(axes: tuple[Axis, ...]) -> Point:
    """Where the search begins."""
    return tuple(axis.start for axis in axes)


def settings(axes: tuple[Axis, ...], point: Point) -> dict[str, Any]:
    """The values at a point, by name."""
    return {axis.name: axis.values[i] for axis, i in zip(axes, point, strict=True)}


def best(losses: Losses) -> Point:
    """The point of least loss; the first one of equals.

    Raises:
      UserError: if every trial diverged.
    """
    sound = {point: loss for point, loss in losses.items() if loss is not None}
    if not sound:
        raise UserError("every trial diverged; start the search at a smaller rate")
    return min(sound, key=lambda point: sound[point])


def next_point(axes: tuple[Axis, ...], losses: Losses, trials: int) -> Point | None:
    """The point to try next; None when `trials` are made or nothing is left to try.

    Axis by axis, up and then down from the best point so far, as long as it gets
    better; then the next axis, and round again until a whole round changes nothing.
    The way is walked again at every call, so it depends on `losses` alone.
    """
    if len(losses) >= trials:
        return None
    point, before = start(axes), None
    if point not in losses:
        return point
    while point != before:
        before = point
        for axis, step in itertools.product(range(len(axes)), (1, -1)):
            while (near := moved(axes, point, axis, step)) is not None:
                if near not in losses:
                    return near
                if not _better(losses[near], losses[point], step):
                    break
                point = near
    return None


def _better(near: float | None, here: float | None, step: int) -> bool:
    """Whether to go on; where both diverged, downwards."""
    if near is None:
        return here is None and step < 0
    return here is None or near < here


def moved(axes: tuple[Axis, ...], point: Point, axis: int, step: int) -> Point | None:
    """The point `step` places along an axis; None outside its grid."""
    place = point[axis] + step
    if not 0 <= place < len(axes[axis].values):
        return None
    return (*point[:axis], place, *point[axis + 1 :])


def edges(axes: tuple[Axis, ...], point: Point) -> list[str]:
    """Settings whose value is the last of its grid, with an open end there."""
    names = []
    for axis, place in zip(axes, point, strict=True):
        low = place == 0 and not axis.closed
        high = place == len(axis.values) - 1 and not axis.closed_above
        names += [axis.name] if low or high else []
    return names


def unbracketed(axes: tuple[Axis, ...], losses: Losses) -> list[str]:
    """Settings of which a neighbour of the best value was tried at no point at all."""
    point = best(losses)
    names = []
    for i, axis in enumerate(axes):
        tried = {p[i] for p in losses}
        near = (moved(axes, point, i, step) for step in (1, -1))
        open_ends = [p for p in near if p is not None and p[i] not in tried]
        names += [axis.name] if open_ends else []
    return names
