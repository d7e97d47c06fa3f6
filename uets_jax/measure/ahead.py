"""How many times less a run has cost than a stored baseline had at the same loss.

A baseline is the curve of one run at full learning rate. It is inverted at the loss
that another run has now: ratio = cost of the baseline, when it was first that good,
over the run's own cost so far. Between two points ln cost is linear in ln loss; beyond
the ends nothing is extrapolated, and the ratio is a bound.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from uets_jax.config import ExperimentConfig, candidates, window_length

COSTS = ("flops", "tokens", "seconds", "joules")
MACHINE_BOUND = ("seconds", "joules")
POINTS = 200  # of a stored curve
WINDOW = 0.2  # nats of ln FLOPs over which a loss is smoothed
FULL_RATE = 1 - 1e-4  # share of the highest rate from which nothing has decayed


@dataclasses.dataclass(frozen=True)
class Curve:
    """Quality that falls strictly while all costs rise.

    quality: smoothed training loss in nats per token, or bits per byte of held-out
      text.
    flops: of training, statistics and scoring included, evaluation not.
    tokens: trained on.
    seconds: of steps and of waiting for data; None where they can't be compared.
    joules: None where they were not measured.
    """

    quality: tuple[float, ...]
    flops: tuple[float, ...]
    tokens: tuple[float, ...]
    seconds: tuple[float, ...] | None = None
    joules: tuple[float, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Setting:
    """What must be equal for two losses to be comparable, and two times.

    machine: class of machine, such as `cpu-2`.
    length: tokens per window.
    eval_tokens: read at a validation; 0: all.
    average: of the weights that are validated, as `optim.average`; 1: an optimizer's
      own.
    plain: the training loss is that of new text drawn evenly, in whole windows, without
      dropout.
    """

    corpus_sha256: str
    tokenizer_sha256: str
    machine: str
    length: int
    eval_tokens: int
    average: float
    plain: bool


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A run to be compared with, as its file has it.

    peak_bytes: of the compiled step, per device; None where unknown.
    train, valid: its curves over training and held-out loss, undecayed; None where
      there is none.
    """

    name: str
    setting: Setting
    peak_bytes: int | None
    train: Curve | None
    valid: Curve | None


def setting_of(
    config: ExperimentConfig,
    corpus: str,
    tokenizer: str,
    machine: str,
    overrides: Sequence[str] = (),
) -> Setting:
    """Of a run; `overrides` are the names of its own parts, see `build`."""
    own = {"select", "forward"} & set(overrides)
    even = candidates(config) == 1 and not config.curriculum.lengths and not own
    new = config.train.start == "random"  # what was counted is known before any step
    plain = even and new and not config.model.dropout
    length, read = window_length(config), config.train.eval_tokens
    average = config.optim.average
    average = 1.0 if config.optim.name == "schedule_free" else average
    return Setting(corpus, tokenizer, machine, length, read, average, plain)


def comparable(baseline: Baseline, own: Setting) -> tuple[Baseline, str]:
    """(the baseline less what can't be compared, what that is or "").

    Losses need the same text, tokenizer and window; training losses need plain text in
    both runs; seconds, joules and bytes need the same class of machine.
    """
    there = baseline.setting
    checks = (
        ("tokenizer", there.tokenizer_sha256, own.tokenizer_sha256),
        ("text", there.corpus_sha256, own.corpus_sha256),
        ("window length", there.length, own.length),
    )
    for what, old, new in checks:
        if old != new:
            bare = dataclasses.replace(baseline, peak_bytes=None, train=None)
            why = f"not comparable with {baseline.name}: another {what}"
            return dataclasses.replace(bare, valid=None), why
    missing = []
    read = lambda setting: (setting.eval_tokens, setting.average)
    if read(there) != read(own):
        missing.append("validations (train.eval_tokens or optim.average differ)")
        baseline = dataclasses.replace(baseline, valid=None)
    if not (there.plain and own.plain):
        missing.append("training losses (text or rows are chosen)")
        baseline = dataclasses.replace(baseline, train=None)
    if there.machine != own.machine:
        missing.append(f"time, energy, bytes (measured on {there.machine})")
        baseline = _without_machine(baseline)
    if not missing:
        return baseline, ""
    what = "; ".join(missing)
    return baseline, f"{what}: not compared with {baseline.name}"


def _without_machine(baseline: Baseline) -> Baseline:
    bare: dict[str, Any] = dict.fromkeys(MACHINE_BOUND)
    less = lambda c: None if c is None else dataclasses.replace(c, **bare)
    curves = {"train": less(baseline.train), "valid": less(baseline.valid)}
    return dataclasses.replace(baseline, peak_bytes=None, **curves)


class Smooth(NamedTuple):
    """A loss and the costs that belong to it, both means over the latest points.

    weight: sum of the weights.
    last:   FLOPs at the latest point.
    loss:   mean loss.
    logs:   means of ln cost, by cost; a loss that is linear in ln FLOPs lies on the
      mean point, so that the mean lags behind nothing.
    """

    weight: float = 0.0
    last: float = 0.0
    loss: float = 0.0
    logs: Mapping[str, float] = {}

    def costs(self) -> dict[str, float]:
        """The geometric means of the costs."""
        return {name: math.exp(log) for name, log in self.logs.items()}


def follow(state: Smooth, loss: float, costs: Mapping[str, float]) -> Smooth:
    """One point more. A point weighs (C / C_now)^(1 / WINDOW), C being the FLOPs: of n
    points with equal FLOPs about n / 6 count fully.

    A loss that is not finite, or a cost that is not positive, changes nothing; a cost
    that is missing once is left out from then on.
    """
    fine = costs and all(v > 0 and math.isfinite(v) for v in costs.values())
    if not fine or not math.isfinite(loss) or costs["flops"] < state.last:
        return state
    keep = (state.last / costs["flops"]) ** (1 / WINDOW)
    weight = keep * state.weight + 1.0
    known = state.logs if state.weight else costs
    to = lambda old, new: old + (new - old) / weight
    logs = {
        name: to(state.logs.get(name, 0.0), math.log(value))
        for name, value in costs.items()
        if name in known
    }
    return Smooth(weight, costs["flops"], to(state.loss, loss), logs)


def costs_of(record: Mapping[str, Any]) -> dict[str, float]:
    """The costs that a record of the metrics names."""
    values = {name: record.get(name) for name in COSTS}
    return {k: float(v) for k, v in values.items() if isinstance(v, int | float)}


class Ratio(NamedTuple):
    """`value` times less; with a sign it is a bound: at least, or at most so much."""

    value: float
    sign: Literal["", ">", "<"] = ""

    def __str__(self) -> str:
        """`3.24x`, `>10.1x`."""
        return f"{self.sign}{self.value:.3g}x"


def ratios(
    curve: Curve, quality: float, costs: Mapping[str, float]
) -> dict[str, Ratio]:
    """Baseline's cost at `quality` over one's own, for each cost that both have."""
    found = {}
    for name in COSTS:
        spent = getattr(curve, name)
        if spent is not None and costs.get(name, 0.0) > 0:
            cost, sign = invert(curve.quality, spent, quality)
            found[name] = Ratio(cost / costs[name], sign)
    return found


def invert(
    quality: Sequence[float], costs: Sequence[float], at: float
) -> tuple[float, Literal["", ">", "<"]]:
    """(cost at which a falling curve reaches `at`, whether it took more or less)."""
    if at > quality[0]:
        return costs[0], "<"
    if at < quality[-1]:
        return costs[-1], ">"
    falling = -np.log(np.asarray(quality))
    cost = math.exp(np.interp(-math.log(at), falling, np.log(np.asarray(costs))))
    return cost, ""


def envelope(quality: Sequence[float], costs: Mapping[str, Any]) -> Curve | None:
    """The curve through each point that is better than all before it, `POINTS` of them
    at most, evenly in ln FLOPs with both ends; None for fewer than two.
    """
    values: Float[np.ndarray, " n"] = np.asarray(quality, np.float64)
    best = np.minimum.accumulate(values) if len(values) else values
    first = np.flatnonzero(np.diff(best, prepend=np.inf) < 0)
    if len(first) < 2:
        return None
    logs = np.log(np.asarray(costs["flops"], np.float64)[first])
    marks = np.linspace(logs[0], logs[-1], POINTS)
    kept = first[np.unique(np.searchsorted(logs, marks - 1e-12))]
    pick = lambda row: tuple(float(row[i]) for i in kept)
    return Curve(pick(values), **{name: pick(row) for name, row in costs.items()})
