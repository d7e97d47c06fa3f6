"""The one interface that every part of a train step has."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Component(NamedTuple):
    """A pure (init, apply) pair, after `optax.GradientTransformation`.

    init:  (params) -> state
    apply: (state, *inputs) -> (output, state)

    `apply` never changes the structure, shapes or dtypes of `state`; whatever does is
    growth, and growth happens on the host. An ablated part is `None`: it is left out
    in Python and leaves nothing in the compiled step.
    """

    init: Callable[..., Any]
    apply: Callable[..., tuple[Any, Any]]


class Selection(NamedTuple):
    """What chooses the data of a step, and learns from what it chose: one state.

    init:    (params) -> state
    choose:  (state, pool [C, L], moment) -> (batch [B, L], weights [B], 1 on average,
             or None, metrics, state)
    observe: (state, batch, token_losses [B, L] in nats, stats, moment) -> (metrics,
             state); read off the training forward, so it costs next to nothing

    Both keep the structure, shapes and dtypes of the state, as a component does.
    Metrics are flat dicts of scalars.
    """

    init: Callable[..., Any]
    choose: Callable[..., tuple[Any, Any, dict[str, Any], Any]]
    observe: Callable[..., tuple[dict[str, Any], Any]]
