"""Time to target: how many times less of a currency an arm needs for the same loss.

A currency is FLOPs, tokens or seconds. Mean loss of fully decayed runs is interpolated
over log budget and inverted at the target; nothing is extrapolated.
"""

import dataclasses
import itertools
import math
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num

from uets_jax.errors import UserError
from uets_jax.measure.difference import TAIL

_ROUNDING = 1e-12  # relative: a target that is a curve's own point lies on the curve
_STEPS = 48  # of bisection, in a piece between two budgets

# of each draw, by the seeds that name the rows
_Rows = dict[tuple[int, ...], Int[np.ndarray, "draws _"]]


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """Losses of the runs whose mean is the target, one per seed.

    Raises:
      UserError: no seeds, a seed twice, or losses that are not one finite positive
        number per seed.
    """

    losses: Float[np.ndarray, " seeds"]
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        _settle(self, self.losses, (len(self.seeds),))


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """Losses of one arm's fully decayed runs: one row per seed, one column per budget.

    budgets: ascending, in units of the currency; where it differs between seeds, as
      seconds do, its mean over them.
    losses: bits per byte (any unit, but one and the same wherever curves meet).
    seeds: names of the rows; stored in ascending order, the rows with them. Arms with
      the same seeds are paired.

    Raises:
      UserError: as `Target`, and for fewer than two budgets or any that is not finite,
        positive and larger than the one before.
    """

    budgets: Num[np.ndarray, " k"]
    losses: Float[np.ndarray, "seeds k"]
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        budgets = np.array(self.budgets, np.float64)
        if budgets.ndim != 1 or budgets.size < 2:
            raise UserError(f"budgets: {budgets.shape}: a curve needs two or more")
        rising = np.diff(budgets, prepend=0.0) > 0
        if not (np.isfinite(budgets).all() and rising.all()):
            raise UserError(f"budgets: {budgets}: give positive, ascending numbers")
        object.__setattr__(self, "budgets", budgets)
        _settle(self, self.losses, (len(self.seeds), budgets.size))


class Interval(NamedTuple):
    """A ratio with its 95 % interval.

    value:  of the mean curves; None where one of them does not bracket the target.
    low, high: 0 and inf where the runs set no bound.
    missed: share of the draws (`method="t"`: of the left-out seeds) in which a curve
      does not bracket the target.
    draws:  how many there were.
    """

    value: float | None
    low: float
    high: float
    missed: float
    draws: int


def target_at(curve: Curve, budget: float) -> Target:
    """What `curve` reaches at `budget`, as a target for others; see `loss_at`."""
    return Target(loss_at(curve, budget), curve.seeds)


def loss_at(curve: Curve, budget: float) -> Float[np.ndarray, " seeds"]:
    """Each seed's loss at a budget, for comparisons at equal budget.

    Monotone cubic interpolation (Fritsch and Carlson 1980) over log budget, through
    every point; not pooled, so a rise between budgets shows.

    Raises:
      UserError: the budget lies outside the curve's.
    """
    from scipy.interpolate import PchipInterpolator

    first, *_, last = curve.budgets
    if not first <= budget <= last:
        raise UserError(
            f"budget {budget:g}: the curve has {first:g} to {last:g}: run it there"
        )
    x = np.log(curve.budgets)
    return PchipInterpolator(x, curve.losses, axis=1)(np.log(budget))


def budget_at(curve: Curve, target: float) -> float | None:
    """The smallest budget at which the mean curve reaches the target loss.

    Monotone cubic interpolation over log budget. Where the mean loss does not fall from
    one budget to the next, neighbours are pooled into their mean (isotonic regression):
    a dip by luck does not reach the target. None outside the range of the pooled
    losses.
    """
    losses = curve.losses.mean(0)[None]
    low, high = _crossings(curve.budgets, losses, np.array([target], np.float64))
    return float(low[0]) if low[0] == high[0] else None


def brackets(curve: Curve, target: float, within: float = 2.0) -> bool:
    """Whether the crossing has budgets on both sides, each within this factor of it.

    A crossing at one of the budgets needs no other.
    """
    crossing = budget_at(curve, target)
    if crossing is None:
        return False
    factors = np.log(curve.budgets / crossing)
    near = np.abs(factors) <= math.log(within) + 1e-9
    below, above = near & (factors <= 1e-9), near & (factors >= -1e-9)
    return bool(below.any() and above.any())


def ratio(
    base: Curve,
    arm: Curve,
    target: Target | float,
    draws: int = 10_000,
    seed: int = 0,
    method: Literal["bootstrap", "t"] = "bootstrap",
) -> Interval:
    """Budget of `base` at the target over that of `arm`: higher means a better arm.

    `bootstrap` resamples seeds: one resample serves all of `base`, `arm` and `target`
    that have the same seeds (what a seed does to all of them cancels), others get their
    own; the target is the mean of its resampled losses. If there are no more than
    `draws` resamples (3 seeds: 27, 5 seeds: 3,125), each counts once. A draw in which a
    curve starts below the target or ends above it still bounds the ratio: its lower
    bound counts for `low`, its upper one for `high`.

    `t` is a t-interval of the log ratio with seeds - 1 degrees of freedom. Its standard
    error is the jackknife's (Tukey 1958), from leaving out one seed at a time; for
    small noise that is the t-interval of the ratios of single seeds, but seeds need not
    bracket the target one by one. It sets no bound if a curve that lacks a seed does
    not bracket.

    Which to trust: a bootstrap cannot show a spread that the seeds did not. With normal
    noise, its 95 % intervals held the true ratio in 76 % of 1,000 experiments of three
    seeds and in 83 % of five; those of `t` in 95 % of both, being 2.6 and 1.6 times as
    wide in the log (tests/measure/test_target.py repeats 200). Read the bootstrap as
    the spread of these runs; what is claimed of the next ones should survive `t`.

    One seed sets no bounds; a target that is a number has no spread.

    Raises:
      UserError: an unknown method, no draws, or `t` with seeds that differ.
    """
    if method not in ("bootstrap", "t") or draws < 1:
        raise UserError(f"ratio: {method!r}, {draws} draws: bootstrap or t, 1 or more")
    parts = (base, arm, target) if isinstance(target, Target) else (base, arm)
    groups = list(dict.fromkeys(part.seeds for part in parts))
    if method == "t" and len(groups) > 1:
        raise UserError(f"ratio: t needs the same seeds everywhere, not {groups}")
    whole = {group: np.arange(len(group))[None] for group in groups}
    [least], [most] = _ratios(base, arm, target, whole)
    value = float(least) if least == most else None
    if min(map(len, groups)) == 1:
        return Interval(value, 0.0, math.inf, 0.0, 0)
    rows = _left_out(groups) if method == "t" else _resamples(groups, draws, seed)
    lows, highs = _ratios(base, arm, target, rows)
    missed = float((lows != highs).mean())
    if method == "bootstrap":
        ends = _percentiles(lows, highs)
    elif value is None or missed:
        ends = 0.0, math.inf
    else:
        ends = _jackknife(value, lows)
    return Interval(value, *ends, missed, len(lows))


def _settle(part: Target | Curve, losses: object, shape: tuple[int, ...]) -> None:
    """Checks losses and seeds, and stores both in the order of the seeds."""
    values, seeds = np.asarray(losses, np.float64), np.asarray(part.seeds)
    if not seeds.size or len(set(part.seeds)) < seeds.size:
        raise UserError(f"seeds: {part.seeds}: name each row once")
    if values.shape != shape:
        raise UserError(f"losses: shape {values.shape}: {shape} goes with the seeds")
    if not (np.isfinite(values) & (values > 0)).all():
        raise UserError("losses: not all are finite and positive: leave such runs out")
    order = np.argsort(seeds)
    object.__setattr__(part, "losses", values[order])
    object.__setattr__(part, "seeds", tuple(int(seed) for seed in seeds[order]))


def _pooled(losses: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    """Isotonic regression of each row to one that never rises, by min-max of means.

    At i: the least over starts j <= i of the largest mean of j..m over ends m >= i.
    """
    ends = range(1, losses.shape[1] + 1)
    total = np.cumsum(np.pad(losses, ((0, 0), (1, 0))), axis=1)
    columns = []
    for i in range(len(ends)):
        largest = [
            np.max([(total[:, m] - total[:, j]) / (m - j) for m in ends[i:]], axis=0)
            for j in range(i + 1)
        ]
        columns.append(np.min(largest, axis=0))
    return np.stack(columns, axis=1)


def _crossings(
    budgets: Float[np.ndarray, " k"],
    losses: Float[np.ndarray, "n k"],
    targets: Float[np.ndarray, " n"],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Bounds on the budgets at which n mean curves reach n targets; equal inside."""
    from scipy.interpolate import PchipInterpolator

    if not np.isfinite(targets).all():
        raise UserError(f"target: {targets[0]}: give a finite loss")
    x, y = np.log(budgets), _pooled(losses)
    slack = _ROUNDING * np.abs(targets)
    reached = y <= (targets + slack)[:, None]
    first = reached.argmax(1)  # 0 also if none is
    piece = np.maximum(first - 1, 0)
    a, b, c, d = PchipInterpolator(x, y, axis=1).c[:, piece, np.arange(len(y))]
    below, above = np.zeros(len(y)), np.diff(x)[piece]
    for _ in range(_STEPS):
        middle = (below + above) / 2
        high = ((a * middle + b) * middle + c) * middle + d > targets
        below = np.where(high, middle, below)
        above = np.where(high, above, middle)
    found = np.where(first > 0, np.exp(x[piece] + above), budgets[0])
    never, already = ~reached[:, -1], y[:, 0] < targets - slack
    low = np.where(never, budgets[-1], np.where(already, 0.0, found))
    return low, np.where(never, np.inf, found)


def _ratios(
    base: Curve, arm: Curve, target: Target | float, rows: _Rows
) -> tuple[Float[np.ndarray, " draws"], Float[np.ndarray, " draws"]]:
    """Bounds on the ratio in each draw of rows; equal where both curves bracket."""
    mean = lambda part: part.losses[rows[part.seeds]].mean(1)
    ours, theirs = mean(arm), mean(base)
    fixed = not isinstance(target, Target)
    targets = np.full(len(ours), float(target)) if fixed else mean(target)
    least, most = _crossings(arm.budgets, ours, targets)
    low, high = _crossings(base.budgets, theirs, targets)
    with np.errstate(divide="ignore"):
        return low / most, high / least


def _resamples(groups: list[tuple[int, ...]], draws: int, seed: int) -> _Rows:
    """Every resample of the seeds if `draws` suffice, else so many random ones."""
    sizes = [len(group) for group in groups]
    if math.prod(n**n for n in sizes) > draws:
        rng = np.random.default_rng(seed)
        return {g: rng.integers(len(g), size=(draws, len(g))) for g in groups}
    every = [itertools.product(range(n), repeat=n) for n in sizes]
    columns = zip(*itertools.product(*every), strict=True)
    return {g: np.array(rows) for g, rows in zip(groups, columns, strict=True)}


def _left_out(groups: list[tuple[int, ...]]) -> _Rows:
    [group] = groups
    rows = itertools.combinations(range(len(group)), len(group) - 1)
    return {group: np.array([*rows])}


def _percentiles(
    lows: Float[np.ndarray, " n"], highs: Float[np.ndarray, " n"]
) -> tuple[float, float]:
    """Of the order statistics just outside, as infinities do not interpolate."""
    place = math.floor(TAIL * (len(lows) - 1))
    return float(np.sort(lows)[place]), float(np.sort(highs)[-1 - place])


def _jackknife(value: float, ratios: Float[np.ndarray, " n"]) -> tuple[float, float]:
    from scipy.special import stdtrit

    n = len(ratios)
    error = math.sqrt(n - 1) * np.log(ratios).std()
    half = float(stdtrit(n - 1, 1 - TAIL)) * error
    with np.errstate(over="ignore"):
        return float(value * np.exp(-half)), float(value * np.exp(half))
