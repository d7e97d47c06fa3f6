"""The law of growing models from recorded runs: least squares on the training loss."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from uets_jax.errors import UserError
from uets_jax.growth.law import Law, gap, mixed, static

_POWER, _LAG = 0.35, 0.1  # where the search begins; lag in units
_LOOSE = {"floor": 2.0, "power": 0.02, "jump": 0.3, "lag": 1.5}  # of the priors


class Curve(NamedTuple):
    """One recorded run.

    path:   (size index, tokens from which on), the first at 0.
    tokens: [n] where the loss was taken; while the rate is constant, warm-up left out.
    losses: [n] of one step each, nats per token.
    end:    tokens of the whole run.
    final:  its loss in the end, decayed; None: unknown.
    """

    path: tuple[tuple[int, float], ...]
    tokens: np.ndarray
    losses: np.ndarray
    end: float
    final: float | None = None


class Fit(NamedTuple):
    """residual: root mean square over all points, nats: the noise and what is missed.
    missed: root mean square over the curves of their mean residual: what is missed.
    final_error: the same of the decayed losses; nan where none is known.
    points: that were fitted.
    """

    law: Law
    residual: float
    missed: float
    final_error: float
    points: int


def fit(
    curves: Sequence[Curve],
    cost: Sequence[float] | np.ndarray,
    batch: float,
    start: float,
) -> Fit:
    """The law under which the curves are likeliest, for equal normal noise.

    Normal priors decide what the curves leave open: floor, half of the least loss, +- 2
    nats; beta, 0.35 within 2 %; jump, 0 +- 0.3; lag, a tenth of the longest run within
    a factor of 4. Over less than a decade of tokens floor and exponent can't be told
    apart: a free exponent fits as well and is absurd at twice the length. Residuals are
    in units of the noise, which is taken from differences of neighbours.

    Args:
      curves: of every size at least one that ends in it or passes it.
      cost: FLOPs per token of each size.
      batch: tokens per step.
      start: loss of an untrained model.

    Raises:
      UserError: where a size has no curve, or a curve has fewer than three points.
    """
    from scipy.optimize import least_squares

    _check(curves, len(cost))
    unit = max(curve.end for curve in curves)
    noise = _noise(curves)
    empty = np.zeros(len(cost))
    fixed = Law(
        floor=empty,
        height=empty,
        power=empty,
        drop=empty,
        cost=np.asarray(cost, np.float64),
        jump=0.0,
        lag=1.0,
        noise=noise,
        start=start,
        unit=unit,
        batch=batch,
    )
    first = _first(curves, len(cost))

    def residuals(x: np.ndarray) -> np.ndarray:
        law = _unpacked(x, fixed)
        parts = [(predicted(law, c, c.tokens) - c.losses) / noise for c in curves]
        return np.concatenate([*parts, _prior(x, first, len(cost))])

    found = least_squares(residuals, first, x_scale="jac", max_nfev=500)
    law = _unpacked(found.x, fixed)
    rest = [predicted(law, c, c.tokens) - c.losses for c in curves]
    law, final_error = _decayed(law, curves)
    rms = lambda x: float(np.sqrt(np.mean(np.square(x))))
    every = np.concatenate(rest)
    means = [r.mean() for r in rest]
    law = law._replace(noise=rms(every))
    return Fit(law, rms(every), rms(means), final_error, every.size)


def predicted(law: Law, curve: Curve, tokens: Any) -> Any:
    """Loss of a run on the path of `curve`, before any decay; float64 on the host."""
    tokens = np.asarray(tokens, np.float64)
    (size, since), *rest = curve.path
    apart, found = 0.0, static(law, size, tokens)
    for after, at in rest:
        before = mixed(law, size, at, apart, since, np.exp)
        size, since, apart = after, at, gap(law, before, after, at)
        later = mixed(law, size, np.maximum(tokens, at), apart, since, np.exp)
        found = np.where(tokens > at, later, found)
    return found


def _check(curves: Sequence[Curve], sizes: int) -> None:
    seen = {size for curve in curves for size, _ in curve.path}
    for size in range(sizes):
        if size not in seen:
            raise UserError(f"fit: no curve of size {size}: record a run that has it")
    for number, curve in enumerate(curves):
        if len(curve.tokens) < 3 or len(curve.tokens) != len(curve.losses):
            raise UserError(
                f"fit: curve {number} has {len(curve.tokens)} points and "
                f"{len(curve.losses)} losses: give three or more"
            )


def _noise(curves: Sequence[Curve]) -> float:
    """Of one point: neighbours differ by sqrt(2) times as much."""
    steps = np.concatenate([np.diff(c.losses) for c in curves])
    return max(float(np.sqrt(np.mean(np.square(steps)) / 2)), 1e-6)


def _first(curves: Sequence[Curve], sizes: int) -> np.ndarray:
    """[3 K + 2]: floors, ln heights, ln powers, jump, ln lag (in units)."""
    low = min(float(c.losses.min()) for c in curves)
    one = np.ones(sizes)
    ends = (np.log(low / 2) * one, np.log(_POWER) * one, [0.0, np.log(_LAG)])
    return np.concatenate([low / 2 * one, *ends])


def _unpacked(x: np.ndarray, fixed: Law) -> Law:
    sizes = (x.size - 2) // 3
    floor, height, power = x[:-2].reshape(3, sizes)
    height, power = np.exp(np.clip(height, -20, 5)), np.exp(np.clip(power, -5, 2))
    lag = np.exp(np.clip(x[-1], -7, 3)) * fixed.unit
    return fixed._replace(floor=floor, height=height, power=power, jump=x[-2], lag=lag)


def _prior(x: np.ndarray, first: np.ndarray, sizes: int) -> np.ndarray:
    away = x - first
    floor, power = away[:sizes], away[2 * sizes : 3 * sizes]
    ends = [away[-2] / _LOOSE["jump"], away[-1] / _LOOSE["lag"]]
    return np.concatenate([floor / _LOOSE["floor"], power / _LOOSE["power"], ends])


def _decayed(law: Law, curves: Sequence[Curve]) -> tuple[Law, float]:
    """The mean drop of each size (that of all where it has none), and what is left."""
    known = [c for c in curves if c.final is not None]
    if not known:
        return law, float("nan")
    drops = np.array([predicted(law, c, c.end) - c.final for c in known], np.float64)
    last = np.array([c.path[-1][0] for c in known])
    mean = lambda k: drops[last == k].mean() if (last == k).any() else drops.mean()
    drop = np.array([mean(k) for k in range(len(law.floor))])
    error = float(np.sqrt(np.mean(np.square(drops - drop[last]))))
    return law._replace(drop=drop), error
