"""A deep ensemble (Lakshminarayanan et al. 2017): M models. A reference: it costs M."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from uets_jax.errors import UserError
from uets_jax.types import Params
from uets_jax.uncertainty.samples import Predictive, predictive


def stack(members: Sequence[Params]) -> Params:
    """Parameter sets of one architecture as one tree with a leading axis of M.

    Raises:
      UserError: for no member, or members of different shapes.
    """
    if not members:
        raise UserError("ensemble: no members: give at least one parameter set")
    form = lambda tree: jax.tree.map(jnp.shape, tree)
    for number, member in enumerate(members):
        if form(member) != form(members[0]):
            raise UserError(
                f"ensemble: member {number} has another shape than member 0"
            )
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)


def ensemble(
    logits: Callable[[Params, Any], Float[Array, "*n v"]],
    members: Params | Sequence[Params],
    inputs: Any,
) -> Predictive:
    """The mean of M models' predictions, and how they differ; one model at a time.

    Args:
      logits: (params, inputs) -> [B, L, V].
      members: a list of parameter sets, or one tree with a leading axis of M.

    Raises:
      UserError: see `stack`.
    """
    stacked = stack(members) if isinstance(members, list | tuple) else members
    return predictive(lambda params: logits(params, inputs), stacked)
