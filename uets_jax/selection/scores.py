"""What the training forward already knows of a row: scores that cost next to nothing.

All but `margin` are read off the token losses and three reductions of the logits, so
no second pass over [B, L, V] is made: about 2 D + 20 operations per token.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from uets_jax.types import IGNORED, Stats

PerToken = Float[Array, "*tokens"]


class RowScores(NamedTuple):
    """By-products of each row, f32 [B]: means over its counted targets.

    loss:         cross entropy, nats.
    entropy:      of the predictive distribution, nats.
    el2n:         ||p - y||, in [0, sqrt 2].
    gnorm:        norm of one token's gradient in the output head.
    leverage:     phi^T (n A + tau I)^-1 phi of the last-layer posterior, as given.
    bald:         information that a label has about the head, nats, to first order.
    learnability: loss less the loss of a reference (RHO-LOSS, JEST), nats.
    """

    loss: Float[Array, " b"]
    entropy: Float[Array, " b"]
    el2n: Float[Array, " b"]
    gnorm: Float[Array, " b"]
    leverage: Float[Array, " b"]
    bald: Float[Array, " b"]
    learnability: Float[Array, " b"]


def row_scores(
    targets: Int[Array, "b l"],
    token_losses: Float[Array, "b l"],
    stats: Stats,
    leverage: Float[Array, "b m"] | None = None,
    reference: Float[Array, " b"] | None = None,
    every: int = 1,
) -> RowScores:
    """All by-products of a batch; a row without targets gets 0.

    Args:
      targets: of the batch; `IGNORED` ones don't count.
      token_losses: nats, 0 where the target is ignored.
      stats: reductions of the same forward pass.
      leverage: of the last token of each group of `every`, that is of the tokens
        [:, every - 1 :: every]; None counts as 0, so that `bald` is 0, too.
      reference: mean loss of each row under a reference model, nats; None counts as 0,
        so that `learnability` is the loss.
      every: 1 where the leverage of all tokens is given.
    """
    norms = el2n(token_losses, stats.collision)
    mean = lambda values: row_mean(values, targets)
    sparse = slice(every - 1, None, every)
    if leverage is None:
        lever = information = jnp.zeros(len(targets), jnp.float32)
    else:
        lever = row_mean(leverage, targets[:, sparse])
        gained = bald(leverage, stats.collision[:, sparse])
        information = row_mean(gained, targets[:, sparse])
    loss = mean(token_losses)
    return RowScores(
        loss=loss,
        entropy=mean(stats.entropy),
        el2n=mean(norms),
        gnorm=mean(head_norm(norms, stats.features)),
        leverage=lever,
        bald=information,
        learnability=loss if reference is None else learnability(loss, reference),
    )


def row_mean(
    values: Float[Array, "b l"], targets: Int[Array, "b l"]
) -> Float[Array, " b"]:
    """f32 mean over the counted targets of each row; 0 where a row has none."""
    counted = targets != IGNORED
    total = jnp.where(counted, values.astype(jnp.float32), 0.0).sum(1)
    return total / jnp.maximum(counted.sum(1), 1)


def el2n(token_losses: PerToken, collision: PerToken) -> PerToken:
    """||p - y||_2 = sqrt(sum p^2 - 2 p_y + 1) with p_y = exp(-loss).

    In float32 it is good to about 5e-4 where p_y is nearly 1.
    Source: Paul et al. 2021, arXiv:2107.07075.
    """
    squared = collision - 2 * jnp.exp(-token_losses) + 1
    return jnp.sqrt(jnp.maximum(squared, 0.0))


def head_norm(
    norms: Float[Array, "b l"], features: Float[Array, "b l d"]
) -> Float[Array, "b l"]:
    """||p - y|| ||phi||: the Frobenius norm of a token's gradient in the output head.

    Exactly so: dl/dW = phi (p - y)^T has rank one. With a soft-cap on the logits the
    gradient is damped further, and this is an upper bound. The mean over a row bounds
    the norm of the row's own gradient, as tokens may cancel.
    """
    phi = features.astype(jnp.float32)
    return norms * jnp.sqrt((phi * phi).sum(-1))


def bald(leverage: PerToken, collision: PerToken) -> PerToken:
    """Mutual information of label and head, nats: 1/2 lev (1 - sum p^2).

    To first order in the variance of the logits, which is lev times the identity:
    H[E p] - E H[p] = 1/2 tr((diag p - p p^T) lev I). Too large where the leverage is
    not small (above about 1).
    """
    return 0.5 * leverage * (1 - collision)


def learnability(
    loss: Float[Array, " b"], reference: Float[Array, " b"]
) -> Float[Array, " b"]:
    """Reducible loss: loss - reference, in nats.

    RHO-LOSS, where the reference was trained on held-out text (arXiv:2206.07137);
    JEST's learnability, where it was trained on curated text (arXiv:2406.17711).
    """
    return loss - reference


def margin(logits: Float[Array, "*tokens v"]) -> Float[Array, "*tokens"]:
    """p_1 - p_2 of the two likeliest tokens, in [0, 1]; small where undecided.

    Not among `RowScores`: no sum over the vocabulary gives the two largest
    probabilities, so it would take one more pass over [B, L, V]. `margin_bounds` tells
    what the collision probability knows of it.
    """
    z = logits - logits.max(-1, keepdims=True)
    p = jnp.exp(z)
    first = p.max(-1, keepdims=True)
    ties = (p == first).sum(-1) > 1
    second = jnp.where(p == first, 0.0, p).max(-1)
    return jnp.where(ties, 0.0, (first[..., 0] - second) / p.sum(-1))


def margin_bounds(collision: PerToken) -> tuple[PerToken, PerToken]:
    """Least and greatest margin p_1 - p_2 for a collision probability c = sum p^2.

    c <= p_1 <= sqrt c, and p_2 lies in [0, 1 - p_1]: max(2 c - 1, 0) and sqrt c.
    """
    return jnp.maximum(2 * collision - 1, 0.0), jnp.sqrt(collision)
