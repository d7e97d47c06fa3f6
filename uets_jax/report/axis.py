"""What runs along an axis of a chart, and how its ticks are written."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from uets_jax.report import scale, units
from uets_jax.report.scale import Point


class Axis(NamedTuple):
    """An axis before its range is known; `kind` decides how its ticks are written."""

    name: str
    kind: Literal["number", "time"] = "number"
    log: bool = False
    pad: float = 0.0
    zero: bool = False  # a linear axis starts at 0


def span(values: Sequence[float], axis: Axis) -> Point:
    """What the axis covers, for these values."""
    zero = [0.0] if axis.zero and not axis.log and values else []
    return scale.extent([*zero, *values], axis.log, axis.pad)


def ticks(axis: Axis, low: float, high: float) -> tuple[str, list[tuple[float, str]]]:
    """The axis's name, with its unit, and its ticks with their texts."""
    if axis.kind == "time" and axis.log:
        values = scale.log_time_ticks(low, high)
        return axis.name, [(v, _time(v)) for v in values]
    name, unit = axis.name, 1.0
    if axis.kind == "time":
        suffix, unit = units.time_unit(high)
        name = f"{name} ({suffix})"
    pick = scale.log_ticks if axis.log else scale.linear_ticks
    values = pick(low / unit, high / unit)
    texts = _texts(values, axis.log)
    return name, [(v * unit, text) for v, text in zip(values, texts, strict=True)]


def _time(seconds: float) -> str:
    """In the largest unit that isn't larger than it: `10 min`."""
    known = (("h", 3600.0), ("min", 60.0), ("s", 1.0))
    name, unit = next((u for u in known if seconds >= u[1]), known[-1])
    return f"{seconds / unit:.6g} {name}"


def _texts(values: Sequence[float], log: bool) -> list[str]:
    """Tick texts that differ; plain numbers on a linear axis get equal decimals."""
    tries = ([units.si(v, digits) for v in values] for digits in (6, 9, 12, 17))
    texts = next((t for t in tries if len(set(t)) == len(t)), [str(v) for v in values])
    if log or not all(t.lstrip("-").replace(".", "", 1).isdigit() for t in texts):
        return texts
    places = max(len(t.partition(".")[2]) for t in texts)
    return [f"{v:.{places}f}" if v else "0" for v in values]
