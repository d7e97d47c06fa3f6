"""A law of the training loss of a model that changes its size, in tokens.

At a constant learning rate, a model of size k that was never another one is at

    L_k(D) = E_k + B_k (D / unit)^-beta_k                    nats per token

after D tokens. One that became size k at D_0, when its loss was L_0, is at

    L_k(D) + (L_0 - L_k(D_0) + jump) exp(-(D - D_0) / lag):

its curve joins the one it would have had ("mixing", arXiv:2511.04981). The final decay
of the rate takes off delta_k more.
"""

from typing import Any, NamedTuple


class Law(NamedTuple):
    """Arrays of NumPy or JAX; [K] by size, or scalars.

    floor:  E_k, nats per token.
    height: B_k, nats.
    power:  beta_k.
    drop:   delta_k, nats.
    cost:   FLOPs per token of training at size k.
    jump:   nats that a change of size costs at once.
    lag:    tokens.
    noise:  standard deviation of the loss of one step, nats.
    start:  loss before the first step, nats.
    unit:   tokens.
    batch:  tokens per step.
    """

    floor: Any
    height: Any
    power: Any
    drop: Any
    cost: Any
    jump: Any
    lag: Any
    noise: Any
    start: Any
    unit: Any
    batch: Any


def static(law: Law, size: Any, tokens: Any) -> Any:
    """L_k(D); tokens count as one step's at least."""
    x = tokens / law.unit
    least = law.batch / law.unit
    x = x + (least - x) * (x < least)
    return law.floor[size] + law.height[size] * x ** -law.power[size]


def gap(law: Law, before: Any, size: Any, tokens: Any) -> Any:
    """How far above its static curve a model is that is at loss `before` and becomes
    another size."""
    return before - static(law, size, tokens) + law.jump


def mixed(law: Law, size: Any, tokens: Any, apart: Any, since: Any, exp: Any) -> Any:
    """The loss after `tokens`, of one that was `apart` at `since`.

    Args:
      exp: of NumPy or JAX.
    """
    away = exp(-(tokens - since) / law.lag)
    return static(law, size, tokens) + apart * away
