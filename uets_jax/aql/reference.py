"""What the loss of a candidate is held against (RHO): a table, or an earlier model."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float

from uets_jax.measure.scopes import category
from uets_jax.selection.scores import row_mean
from uets_jax.types import Batch


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A model as it was: its parameters, traced, and its function, static.

    forward: (params, batch) -> (token_losses [B, L] in nats, stats)
    """

    params: Any
    forward: Callable[..., Any] = dataclasses.field(metadata={"static": True})


# a table: the loss of every training window, in nats per token
Reference = Float[Array, " windows"] | Snapshot


def reference_losses(reference: Reference, pool: Batch) -> Float[Array, " c"]:
    """The reference's mean loss of each row, in nats per token.

    A snapshot's forward pass over the pool is charged to "reference".
    """
    if not isinstance(reference, Snapshot):
        return reference[pool.ids]
    with category("reference"):
        return row_mean(reference.forward(reference.params, pool)[0], pool.targets)
