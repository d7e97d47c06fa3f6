"""What the streaming selection takes from other rooms, as it sees them."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array

from uets_jax.aql.assets import Knobs
from uets_jax.types import Batch, Metrics, Moment

Admit = Callable[[Moment, Batch], Array]  # 0, or minus a million and more, per window


class Posterior(NamedTuple):
    """A last-layer posterior.

    init:      params -> state
    variances: (state, stats) -> variance of a logit [B, L / every], at the last of
               every `every` tokens
    update:    (state, stats, token_losses, targets) -> (metrics, state)
    """

    init: Callable[..., Any]
    variances: Callable[..., Array]
    update: Callable[..., tuple[Metrics, Any]]
    every: int


class Bandit(NamedTuple):
    """What changes the knobs while training goes on.

    init:   params -> state
    knobs:  (state, knobs) -> knobs of this step
    update: (state, value of the last batch, key) -> (metrics, state)
    """

    init: Callable[..., Any]
    knobs: Callable[..., Knobs]
    update: Callable[..., tuple[Metrics, Any]]
