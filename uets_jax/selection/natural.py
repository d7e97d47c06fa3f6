"""Which order gains of `blind` are those of natural text: neither little nor much."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from uets_jax.errors import UserError


def naturalness(gains: Any, typical: float | Array) -> Any:
    """-|log(gain / typical)|: 0 at best, lower for too little and too much order."""
    xp = jnp if isinstance(gains, jax.Array) else np
    return -abs(xp.log(xp.maximum(gains, 1e-3) / typical))


def typical_gain(gains: Float[np.ndarray, " n"]) -> float:
    """The median gain of the texts that are in some order.

    Gains of disorder spread evenly around 0, so those below 0 tell how far it spreads
    above: a text is in order above three times their root mean square. No share of
    noise is assumed.

    Raises:
      UserError: no text is in order.
    """
    below = gains[gains < 0]
    spread = np.sqrt(np.square(below).mean()) if below.size else 0.0
    ordered = gains[gains > 3 * spread]
    if not ordered.size:  # one text far below 0 in clean text: as many above are noise
        ordered = np.sort(gains[gains > 0])[below.size :]
    if not ordered.size:
        raise UserError("blind: no text is in order; check `starts` or give more text")
    return float(np.median(ordered))


def gate(
    scores: Float[np.ndarray, " n"],
    naturalness: Float[np.ndarray, " n"],
    floor: float = -1.0,
) -> Float[np.ndarray, " n"]:
    """Scores with every text that is less natural than `floor` behind all others.

    Those behind are ordered by naturalness. The default admits order gains within a
    factor e of the typical one (see `blind`).
    """
    behind = scores.min(initial=np.inf) + np.minimum(naturalness, floor) - 1
    return np.where(naturalness > floor, scores, behind)
