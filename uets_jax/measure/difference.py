"""Whether one set of losses is lower than another, and when a saving has paid."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from uets_jax.errors import UserError

TAIL = 0.025  # outside each end of a 95 % interval
_EXACT = 2**20  # relabellings that are enumerated
_ROUNDING = 1e-12  # relative: sums of the same losses in another order are equal


class Difference(NamedTuple):
    """Mean of a - b, its 95 % interval, and how likely so low a mean is if a = b.

    p: one-sided, of the t-test.
    p_exact: one-sided, over all sign flips or relabellings; None where they are over a
      million. Pairs cannot get it below 2**-seeds: 1/8 with three, 1/32 with five.
    """

    mean: float
    low: float
    high: float
    p: float
    p_exact: float | None


def difference(
    a: Sequence[float] | Float[np.ndarray, " m"],
    b: Sequence[float] | Float[np.ndarray, " n"],
    paired: bool = True,
) -> Difference:
    """Mean of a - b over seeds, and one-sided tests that `a` is lower than `b`.

    Paired: Student's t of the differences, and all flips of their signs. Else: Welch's
    t, and all ways to choose which losses are `a`'s. The exact p asks for nothing but
    exchangeability; the t-test also for normal noise.

    Raises:
      UserError: fewer than two losses, one that is not finite, or unequal pairs.
    """
    from scipy.special import stdtr, stdtrit

    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if min(a.size, b.size) < 2 or not np.isfinite([*a, *b]).all():
        raise UserError(f"difference: {a} and {b}: give two or more finite losses each")
    if paired and a.size != b.size:
        raise UserError(f"difference: {a.size} losses and {b.size}: no pairs")
    mean = float(a.mean() - b.mean())
    error, freedom = _error(a - b) if paired else _welch(a, b)
    t = mean / error if error else math.copysign(math.inf, mean) if mean else 0.0
    half = float(stdtrit(freedom, 1 - TAIL)) * error
    exact = _flips(a - b) if paired else _relabelled(a, b)
    return Difference(mean, mean - half, mean + half, float(stdtr(freedom, t)), exact)


def break_even(tuning_cost: float, saved_per_run: float) -> float:
    """Runs after which what was spent once (tuning, meta-training) is saved.

    Both in one currency. The arm's saving per run is the base's budget at the target
    less its own; inf when nothing is saved.

    Raises:
      UserError: a cost that is negative, or a number that is not finite.
    """
    if not (0 <= tuning_cost < math.inf and math.isfinite(saved_per_run)):
        raise UserError(
            f"break_even: cost {tuning_cost}, saving {saved_per_run}: give finite "
            "numbers, and no negative cost"
        )
    return tuning_cost / saved_per_run if saved_per_run > 0 else math.inf


def _error(values: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Standard error of the mean, and its degrees of freedom."""
    return float(values.std(ddof=1) / math.sqrt(values.size)), values.size - 1.0


def _welch(
    a: Float[np.ndarray, " m"], b: Float[np.ndarray, " n"]
) -> tuple[float, float]:
    """As `_error`, of the difference of two means (Welch 1947)."""
    (a_error, a_freedom), (b_error, b_freedom) = _error(a), _error(b)
    error = math.hypot(a_error, b_error)
    if not error:
        return 0.0, a_freedom + b_freedom
    spread = (a_error / error) ** 4 / a_freedom + (b_error / error) ** 4 / b_freedom
    return error, 1 / spread


def _flips(gaps: Float[np.ndarray, " n"]) -> float | None:
    """Share of sign flips whose sum is as low as the one that was seen."""
    if 2**gaps.size > _EXACT:
        return None
    sums = np.zeros(1)
    for gap in gaps:
        sums = np.concatenate([sums + gap, sums - gap])
    return float((sums <= gaps.sum() + _ROUNDING * np.abs(gaps).sum()).mean())


def _relabelled(a: Float[np.ndarray, " m"], b: Float[np.ndarray, " n"]) -> float | None:
    """Share of choices of `a` among all losses whose sum is as low as the real one."""
    if math.comb(a.size + b.size, a.size) > _EXACT:
        return None
    both = np.concatenate([a, b])
    chosen = np.array([*itertools.combinations(range(both.size), a.size)])
    slack = _ROUNDING * np.abs(both).sum()
    return float((both[chosen].sum(1) <= a.sum() + slack).mean())
