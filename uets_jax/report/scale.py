"""From values to pixels: linear and logarithmic scales and their ticks."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

Point = tuple[float, float]
PLAIN = (int, float)  # types of what can be drawn
HUGE, TINY = 1e100, 1e-100
MINUTE, HOUR = 60.0, 3600.0
COARSE_TIMES = tuple(
    [10.0**k for k in range(-9, 2)]
    + [MINUTE, 10 * MINUTE]
    + [HOUR * 10.0**k for k in range(8)]
)
FINE_TIMES = tuple(
    [m * 10.0**k for k in range(-9, 0) for m in (1, 2, 5)]
    + [1.0, 2.0, 5.0, 10.0, 20.0, 30.0]
    + [m * MINUTE for m in (1, 2, 5, 10, 20, 30)]
    + [m * HOUR * 10.0**k for k in range(8) for m in (1, 2, 5)]
)


def number(value: Any) -> float | None:
    """`value` where it is a number that can be drawn, else None.

    Beyond `HUGE` a loss is as good as infinite, below `TINY` it is 0.
    """
    if type(value) not in PLAIN or not -HUGE < value < HUGE:
        return None
    return float(value) if abs(value) > TINY else 0.0


class Scale(NamedTuple):
    """Maps [low, high] onto the pixels [start, end]; `log` needs positive values."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def pixels(self, values: Sequence[float]) -> list[float]:
        """The pixel of each value."""
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            values = [math.log(v) for v in values]
        else:
            low, high = self.low, self.high
        slope = (self.end - self.start) / (high - low)
        return [self.start + (v - low) * slope for v in values]

    def __call__(self, value: float) -> float:
        """The pixel of one value."""
        return self.pixels([value])[0]


def extent(values: Sequence[float], log: bool, pad: float = 0.0) -> Point:
    """Lowest and highest value, never equal, `pad` of the span added at both ends.

    On a log scale only positive values count; (0, 1), or (1, 10), where none is left.
    """
    values = [v for v in values if v > 0] if log else list(values)
    if not values:
        return (1.0, 10.0) if log else (0.0, 1.0)
    low, high = min(values), max(values)
    if log:
        more = math.exp(pad * (math.log(high) - math.log(low)))
        return (low / 2, high * 2) if low == high else (low / more, high * more)
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        half = abs(low) / 10 or 1.0
        return low - half, high + half
    return low - pad * (high - low), high + pad * (high - low)


def linear_ticks(low: float, high: float, target: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten: 2 to `target` + 1 of them."""
    raw = (high - low) / target
    if not 1e-300 < raw < 1e300:
        return [low, high]
    exponent = math.floor(math.log10(raw))
    step = next(m for m in (1, 2, 5, 10) if m * 10.0**exponent >= raw * (1 - 1e-9))
    unit = step * 10.0**exponent
    numbers = range(math.ceil(low / unit), math.floor(high / unit) + 1)
    if exponent < 0:
        ticks = [i * step / 10.0**-exponent for i in numbers]
    else:
        ticks = [i * unit for i in numbers]
    return _inside(ticks, low, high) or [low, high]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, thinned to 7; finer on a short scale; 2 to 10 ticks."""
    first = max(math.floor(math.log10(low)), -307)
    last = min(math.ceil(math.log10(high)), 308)
    powers = _inside([10.0**k for k in range(first, last + 1)], low, high)
    if len(powers) >= 3:
        stride = math.ceil(len(powers) / 7)
        return powers[(len(powers) - 1) % stride :: stride]
    for factors in ((1, 2, 5), (1, 1.5, 2, 3, 4, 6, 8)):
        fine = [m * 10.0**k for k in range(first, last + 1) for m in factors]
        fine = _inside(fine, low, high)
        if 4 <= len(fine) <= 10:
            return fine
    return linear_ticks(low, high)


def log_time_ticks(low: float, high: float) -> list[float]:
    """As `log_ticks`, at round seconds, minutes and hours."""
    for times in (COARSE_TIMES, FINE_TIMES):
        ticks = _inside(times, low, high)
        if 3 <= len(ticks) <= 10 or (times is FINE_TIMES and len(ticks) == 2):
            return ticks
    return log_ticks(low, high)


def _inside(ticks: Sequence[float], low: float, high: float) -> list[float]:
    """The ticks in [low, high], strictly increasing; none where only one is left."""
    kept = sorted({t for t in ticks if low <= t <= high})
    return kept if len(kept) > 1 else []


def thin(points: Sequence[Point], width: float) -> list[Point]:
    """At most two points per `width` pixels, the lowest and the highest, and both ends.

    A curve of 100,000 points looks the same and keeps every spike.
    """
    kept: list[Point] = []
    for _, bucket in itertools.groupby(points, key=lambda p: p[0] // width):
        group = list(bucket)
        heights = [y for _, y in group]
        ends = {heights.index(min(heights)), heights.index(max(heights))}
        kept += [group[i] for i in sorted(ends)]
    if kept and kept[0] != points[0]:
        kept.insert(0, points[0])
    if kept and kept[-1] != points[-1]:
        kept.append(points[-1])
    return kept


def smooth(values: Sequence[float], half: int) -> list[float]:
    """Mean of up to `half` neighbours on either side.

    Near the start the window is symmetric and shrinks to the value itself, so that the
    steep first fall isn't smeared; at the end it only loses its right side.
    """
    sums = list(itertools.accumulate(values, initial=0.0))
    means = []
    for i in range(len(values)):
        reach = min(half, i // 4)
        left, right = i - reach, min(i + reach + 1, len(values))
        means.append((sums[right] - sums[left]) / (right - left))
    return means


def running_mean(points: Sequence[Point]) -> list[Point]:
    """The points with their heights smoothed over about a thirtieth of the curve."""
    means = smooth([y for _, y in points], max(1, len(points) // 60))
    return [(x, y) for (x, _), y in zip(points, means, strict=True)]
