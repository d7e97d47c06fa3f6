"""The best part of a pool, by score."""

import numpy as np
from jaxtyping import Bool, Float, Int

from uets_jax.errors import UserError


def keep_best(
    scores: Float[np.ndarray, " n"], lengths: Int[np.ndarray, " n"], share: float
) -> Bool[np.ndarray, " n"]:
    """Keeps texts from the best score down, until they hold `share` of the tokens.

    The text that reaches the share is kept, what follows is not. Equal scores go by
    their place in the pool.

    Raises:
      UserError: a share that is none, or a score that is no number.
    """
    if not 0 < share <= 1:
        raise UserError(f"keep: the share must be above 0 and at most 1, got {share}")
    if np.isnan(scores).any():
        place = int(np.isnan(scores).argmax())
        raise UserError(f"keep: the score of text {place} is not a number")
    order = np.argsort(-scores, kind="stable")
    before = np.cumsum(lengths[order]) - lengths[order]
    keep = np.zeros(len(scores), bool)
    keep[order] = before < share * lengths.sum()
    return keep
