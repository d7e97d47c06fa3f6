"""What windows are worth by their text alone: the scores that depend on no state."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from uets_jax.aql.assets import Knobs, Scale, Text
from uets_jax.config import SelectConfig
from uets_jax.selection import buckets, quality

BARRED = 4e6  # taken off the score of what is not natural; above a curriculum's bar


def merit(
    config: SelectConfig, text: Text, knobs: Knobs, tokens: Int[Array, "n l"]
) -> tuple[Float[Array, " n"], Int[Array, " n"], Float[Array, " n"]]:
    """(score in deviations of natural text, kind of text, what bars it) of windows.

    The score is the likeness to the target sample where there is one, else how natural
    the order is; the third result is 0 for natural text, else at most -`BARRED`.

    Args:
      config: which scores are on; each `run` of the windows are consecutive.
      text: what is known of the whole text.
      knobs: for the least naturalness.
      tokens: of the windows.
    """
    key = jnp.zeros(tokens.shape[0])
    kind, bar = jnp.zeros(tokens.shape[0], jnp.int32), key
    like = text.likeness if config.lexical else None
    if like is not None and text.lexical is not None:
        found = quality.likeness(text.lexical, tokens, text.eot, config.run)
        key += _scaled(found, like)
        kind = _bin(found, like)
    if config.natural:
        found = quality.order(text.blind, text.typical, tokens, text.eot, config.run)
        behind = -BARRED * (1 + jnp.minimum(knobs.natural - found, 9.0))
        bar = jnp.where(found >= knobs.natural, 0.0, behind)
        if like is None:
            key += _scaled(found, text.order)
        kind = kind * (text.order.edges.shape[0] + 1) + _bin(found, text.order)
    return key, kind, bar


def _scaled(values: Float[Array, " n"], scale: Scale) -> Float[Array, " n"]:
    return (values - scale.mean) / scale.deviation


def _bin(values: Float[Array, " n"], scale: Scale) -> Int[Array, " n"]:
    return buckets.bucket_of((values,), (scale.edges,))
