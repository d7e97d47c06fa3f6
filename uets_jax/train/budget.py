"""From FLOPs to steps: how long a run may be for what it is given."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from uets_jax.config import ExperimentConfig
from uets_jax.errors import UserError
from uets_jax.measure.ledger import NOT_TRAINING
from uets_jax.measure.work import Costs
from uets_jax.train.cost import total_costs
from uets_jax.train.session import open_session

GUESS, TRIES = 1000, 4


class Spending(NamedTuple):
    """FLOPs of training: what is counted before the first step, and all after it."""

    start: int
    steps: int


def spending(
    config: ExperimentConfig, overrides: Mapping[str, Any] | None = None
) -> Spending:
    """What `config.train.steps` will take, as the ledger will have it; see `steps_for`.

    Raises:
      UserError: as `open_session`.
    """
    session = open_session(config, overrides)
    steps = _training(total_costs(session.config, overrides))
    return Spending(_training(session.start_costs()), steps)


def steps_for(
    config: ExperimentConfig,
    flops: int | float,
    overrides: Mapping[str, Any] | None = None,
) -> int:
    """Steps that `flops` pay for, counted on the traced steps; nothing is compiled.

    Total FLOPs of training, as the ledger counts them: what is known before the first
    step, the steps of each stage, what growth reads; evaluation is not among them. A
    run that grows is taken to do so at the shares of its plan: earlier costs more.

    Raises:
      UserError: if they don't pay for one step, or as `open_session`.
    """
    session = open_session(config, overrides)
    left = flops - _training(session.start_costs())
    steps = GUESS
    for _ in range(TRIES):
        train = dataclasses.replace(session.config.train, steps=steps)
        trial = dataclasses.replace(session.config, train=train)
        spent = _training(total_costs(trial, overrides))
        steps = max(1, int(steps * left / spent))
    step = spent / trial.train.steps
    if left < step:
        raise UserError(
            f"flops: {flops:.3g} don't pay for one step ({step:.3g}) and for what is "
            f"counted before it ({flops - left:.3g}); give more"
        )
    return steps


def _training(costs: Costs) -> int:
    return sum(c.total for name, c in costs.items() if name not in NOT_TRAINING)
