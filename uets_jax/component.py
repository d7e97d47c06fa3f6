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
