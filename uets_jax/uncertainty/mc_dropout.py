"""MC-dropout (Gal & Ghahramani 2016): S stochastic passes. A reference: it costs S.

The model must have been trained with dropout, or its masks are no posterior; without
any dropout all passes agree and the information is 0.
"""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float, Int, Key

from uets_jax.errors import UserError
from uets_jax.types import Params
from uets_jax.uncertainty.samples import Predictive, predictive

Logits = Callable[[Params, Any, Key[Array, ""]], Float[Array, "*n v"]]


def mc_dropout(
    logits: Logits, params: Params, inputs: Any, key: Key[Array, ""], passes: int = 10
) -> Predictive:
    """The mean of S predictions under dropout, and how they differ.

    Args:
      logits: (params, inputs, key) -> [B, L, V]; the key draws the masks.
      passes: S.

    Raises:
      UserError: for less than one pass.
    """
    if passes < 1:
        raise UserError(f"mc_dropout: passes: must be at least 1, got {passes}")
    keys = jax.random.split(key, passes)
    return predictive(lambda k: logits(params, inputs, k), keys)


def information(
    logits: Logits,
    params: Params,
    tokens: Int[Array, "c l"],
    key: Key[Array, ""],
    passes: int = 10,
    pieces: int = 1,
) -> Float[Array, "c l"]:
    """BALD of each token, nats: what an acquisition by MC-dropout reads (v1).

    Args:
      pieces: groups of rows, one after the other, each with masks of its own: memory
        for [C / pieces, L, V] probabilities.

    Raises:
      UserError: for a number of pieces that does not divide the rows.
    """
    rows, length = tokens.shape
    if pieces < 1 or rows % pieces:
        raise UserError(f"information: pieces: {pieces} does not divide {rows} rows")

    def piece(given: tuple[Array, Array]) -> Float[Array, "b l"]:
        return mc_dropout(logits, params, *given, passes).bald

    keys = jax.random.split(key, pieces)
    found = jax.lax.map(piece, (tokens.reshape(pieces, -1, length), keys))
    return found.reshape(tokens.shape)
