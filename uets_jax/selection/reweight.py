"""Importance weights: a biased draw whose weighted mean is still the pool's mean.

For the `pool` mode, where the loss that counts is the pool's own. In the `target` mode
the bias is what selection is for, and no weights are used.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

FLOOR = 0.1  # share of the draw that is uniform
CLIP = 5.0  # most that a row may weigh, in mean weights


def probabilities(
    scores: Float[Array, " n"],
    temperature: float | Array = 1.0,
    floor: float | Array = FLOOR,
) -> Float[Array, " n"]:
    """Chances of a draw, 1 in sum: (1 - floor) softmax(scores / temperature) + floor/n.

    No row's chance is below floor / n, so that no weight 1 / (n p) is above 1 / floor.
    A score of -inf gets the floor alone; with floor 0 it is never drawn.
    """
    soft = jax.nn.softmax(scores.astype(jnp.float32) / temperature)
    return (1 - floor) * soft + floor / len(scores)


def importance_weights(
    chances: Float[Array, " b"], rows: int | Array
) -> Float[Array, " b"]:
    """1 / (n p) for rows that were drawn with replacement from n by `probabilities`.

    mean_b w_b l_b is then an unbiased estimate of the mean of l over all n rows, and
    the weights are 1 on average over draws.
    """
    return 1 / (rows * chances)


def threshold_weights(
    log_chances: Float[Array, " b"], threshold: Array, rows: int | Array
) -> Float[Array, " b"]:
    """The same for b rows that were drawn without replacement by Gumbel top-k.

    Each of n rows has the key log p + Gumbel noise; the b greatest are drawn, and
    `threshold` t is the greatest key that was not. Given t, a row is drawn with chance
    q = P(log p + G > t) = 1 - exp(-p e^-t), and w = b / (n q) makes mean_b w_b l_b
    unbiased. Any of the p may be scaled by a common factor. A threshold of -inf (all
    rows were drawn) gives each row b / n.

    Source: priority sampling, Duffield, Lund and Thorup 2007, with Gumbel keys as in
    Kool, van Hoof and Welling 2019 (arXiv:1903.06059), whose estimator this is.
    """
    drawn = -jnp.expm1(-jnp.exp(log_chances - threshold))
    return len(log_chances) / (rows * drawn)


def normalised(
    weights: Float[Array, " b"], clip: float | Array = CLIP
) -> Float[Array, " b"]:
    """Weights with mean 1, after those above `clip` mean weights were cut to it.

    What the cut takes away all rows share, so that one may end a little above `clip`.
    A step then keeps its size whatever was drawn, and one row can't rule it; the price
    is a bias towards the unweighted mean, of order 1 / b where nothing is cut.
    """
    cut = jnp.minimum(weights / weights.mean(), clip)
    return cut / cut.mean()


def effective_rows(weights: Float[Array, " b"]) -> Float[Array, ""]:
    """(sum w)^2 / sum w^2, in [1, b]: equally weighted rows of the same variance."""
    return weights.sum() ** 2 / (weights * weights).sum()
