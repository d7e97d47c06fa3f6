"""Looks inside a model: readings of its layers and heads over a run."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from uets_jax.report.heatmap import Row
from uets_jax.report.run import Run
from uets_jax.report.scale import Point, number

HEADS = "heads"  # has a value for each head of a layer, any other kind for each layer


class Look(NamedTuple):
    """One reading of a model's layers."""

    step: float
    signals: dict[str, Any]


def looks(run: Run) -> list[Look]:
    """The readings in the order of their steps; of a step taken twice the last one."""
    found: list[Look] = []
    for record in reversed(run.records):
        step, signals = number(record.get("step")), record.get("signals")
        if step is None or not isinstance(signals, dict):
            continue
        if not found or step < found[-1].step:
            found.append(Look(step, signals))
    return found[::-1]


def noise(found: Sequence[Look]) -> list[Point]:
    """The gradient noise scale against steps, where it is positive and finite."""
    values = ((look.step, number(look.signals.get("noise_scale"))) for look in found)
    return [(step, v) for step, v in values if v is not None and v > 0]


def fall(found: Sequence[Look]) -> list[Point]:
    """Nats that the loss falls while FLOPs grow by a factor e, where it is known."""
    slopes = ((look.step, number(look.signals.get("slope"))) for look in found)
    return [(step, -value) for step, value in slopes if value is not None]


def rows(found: Sequence[Look], key: str) -> list[Row]:
    """A row for each layer, or head, that was ever there."""
    columns = [values(look, key) for look in found]
    places = sorted(set().union(*columns))
    name = lambda layer, head=None: (
        f"layer {layer}" if head is None else f"layer {layer}, head {head}"
    )
    return [
        Row(
            ".".join(map(str, at)),
            name(*at),
            [column.get(at) for column in columns],
            group=at[0] if len(at) > 1 else 0,
        )
        for at in places
    ]


def values(look: Look, key: str) -> dict[tuple[int, ...], float]:
    """By (layer,) or (layer, head); NaN for what is no finite number."""
    given = look.signals.get(key)
    layers = given if isinstance(given, list) else []
    if key != HEADS:
        return {(i,): _finite(value) for i, value in enumerate(layers)}
    return {
        (i, j): _finite(value)
        for i, layer in enumerate(layers)
        if isinstance(layer, list)
        for j, value in enumerate(layer)
    }


def _finite(value: Any) -> float:
    found = number(value)
    return math.nan if found is None else found
