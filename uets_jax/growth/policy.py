"""When the next stage of the plan comes: one question, asked at fixed steps.

    decide(policy, signals, config, budget) -> Decision(stages, why)

fixed    every stage whose share of the steps is reached;
trigger  the next stage, once the loss surely falls by less than `growth.slope` nats
         while the FLOPs spent grow by a factor e (the local slope of staged training,
         Shen et al. 2022, arXiv:2203.06211);
probe    whatever did best of the model as it is and grown copies, trained for equal
         FLOPs (adaptive stacking, Agarwal et al. 2024, arXiv:2406.02469);
learned  the next stage, where a learned score is above 0.

`trigger` and `probe` take a stage's share as the latest time; `learned` may refuse for
ever, and takes nothing once the rate decays: what is new then has no time to learn.
"""

import math
from typing import NamedTuple

import numpy as np

from uets_jax.config import ExperimentConfig
from uets_jax.errors import UserError
from uets_jax.growth.learned import Policy
from uets_jax.growth.learned import load_policy as load_policy
from uets_jax.growth.score import Situation, features, score
from uets_jax.growth.stages import Stage
from uets_jax.measure.slope import bottleneck


class Signals(NamedTuple):
    """What a run has seen; plain numbers.

    progress: share of the steps done.
    loss:     mean training loss of late, nats per token.
    slope:    dL / d ln C in nats, C the FLOPs spent; negative while learning.
    error:    its standard error; inf where unknown.
    age:      share of the steps since the last change of shape.
    probes:   loss of the model as it is, then with the first stage, with the first two,
              ..., each trained for equal FLOPs; empty without a probe.
    """

    progress: float
    loss: float
    slope: float
    error: float
    age: float
    probes: tuple[float, ...] = ()


class Budget(NamedTuple):
    """What is spent and to come.

    step, steps: done, and of the whole run.
    flops:  spent so far.
    rates:  FLOPs per step as it is, then after each stage that is left.
    stages: those that are left, in order.
    decay:  share of the steps at which the learning rate's last decay begins.
    """

    step: int
    steps: int
    flops: float
    rates: tuple[float, ...]
    stages: tuple[Stage, ...]
    decay: float


class Decision(NamedTuple):
    """`stages` to take now, in order; none: keep. `why`: a phrase for the report."""

    stages: tuple[Stage, ...]
    why: str


def decide(
    policy: Policy | None, signals: Signals, config: ExperimentConfig, budget: Budget
) -> Decision:
    """The stages to take now; the same for the same arguments, without a clock.

    Args:
      policy: of `load_policy`, for method `learned`.
      signals: of the run.
      config: of the run; its `growth` is read.
      budget: of the run.

    Raises:
      UserError: for method `learned` without a policy.
    """
    method = config.growth.method
    if not budget.stages or method == "none":
        return Decision((), "no stage is left" if method != "none" else "no growth")
    if method == "learned":
        return _learned(policy, signals, config.growth.cost, budget)
    due = _due(signals, budget)
    if method == "fixed":
        return due
    asked = _trigger if method == "trigger" else _probe
    found = asked(signals, config.growth.slope, budget)
    return due if len(due.stages) >= max(1, len(found.stages)) else found


def _due(signals: Signals, budget: Budget) -> Decision:
    """Every stage whose share is reached."""
    due = tuple(s for s in budget.stages if s.share <= signals.progress)
    share = due[-1].share if due else budget.stages[0].share
    verb = "is reached" if due else "is to come"
    return Decision(due, f"share {share:g} {verb} at {signals.progress:.3g}")


def _trigger(signals: Signals, threshold: float, budget: Budget) -> Decision:
    """Where the slope says that this model is the bottleneck."""
    slow = bottleneck(signals.slope, signals.error, threshold)
    sign = "<" if slow else "not <"
    why = f"fall {-signals.slope:.3g} + error {signals.error:.3g} {sign} {threshold:g}"
    return Decision(budget.stages[:1] if slow else (), why)


def _probe(signals: Signals, threshold: float, budget: Budget) -> Decision:
    """The least loss; a tie keeps, and the earlier of two candidates goes first."""
    if not signals.probes:
        return Decision((), "no probe")
    finite = [x if math.isfinite(x) else math.inf for x in signals.probes]
    best = finite.index(min(finite))
    losses = ", ".join(f"{x:.4g}" for x in signals.probes)
    return Decision(budget.stages[:best], f"probe {best} of losses {losses}")


def _learned(
    policy: Policy | None, signals: Signals, cost: float, budget: Budget
) -> Decision:
    if policy is None:
        raise UserError("growth.method: learned needs the weights of a policy")
    if signals.progress >= budget.decay:
        return Decision((), f"the rate decays from {budget.decay:.3g} on")
    seen = features(situation(signals, cost, budget), np)
    value = float(score(np.asarray(policy.weights), seen, np))
    return Decision(budget.stages[:1] if value > 0 else (), f"score {value:.3g}")


def situation(signals: Signals, cost: float, budget: Budget) -> Situation:
    """What the features of the next stage are made of."""
    return Situation(
        progress=signals.progress,
        slope=np.float64(signals.slope),
        error=signals.error,
        age=signals.age,
        flops=budget.flops,
        rate=budget.rates[0],
        next_rate=budget.rates[1],
        last_rate=budget.rates[-1],
        left=budget.steps - budget.step,
        steps=budget.steps,
        cost=cost,
    )
