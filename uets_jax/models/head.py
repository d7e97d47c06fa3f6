"""The output head: logits, losses and their reductions, whole or piece by piece."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from uets_jax.types import IGNORED, Stats

Features = Float[Array, "b l d"]
Matrix = Float[Array, "d v"]
Logits = Float[Array, "b l v"]
Targets = Int[Array, "b l"]
Losses = Float[Array, "b l"]


def raw_logits(features: Features, head: Matrix) -> Logits:
    """In float32 (float64 stays), before the soft-cap."""
    return jnp.einsum(
        "bld,dv->blv",
        features,
        head.astype(features.dtype),
        preferred_element_type=jnp.promote_types(features.dtype, jnp.float32),
    )


def capped(raw: Array, cap: float) -> Array:
    """cap tanh(raw / cap); 0 leaves the logits as they are."""
    return cap * jnp.tanh(raw / cap) if cap else raw


def head_losses(
    features: Features, head: Matrix, targets: Targets, cap: float, chunks: int = 1
) -> tuple[Losses, Stats]:
    """Cross entropy in nats per target (0 where ignored) and the by-products.

    Args:
      features: what the head reads.
      head: output matrix.
      targets: token ids; `IGNORED` carries no loss.
      cap: of the logits, 0: none.
      chunks: pieces of the sequence, one after the other, of which only the raw logits
        are kept for the backward pass; the largest divisor of L up to it is taken. The
        rows stay together, so a batch that is spread over devices stays spread.

    The derivative is a custom one for reverse mode; forward mode (`jax.jvp`) has none.
    """
    length = targets.shape[1]
    pieces = next(n for n in range(min(chunks, length), 0, -1) if length % n == 0)
    if pieces == 1:
        return reduce_logits(raw_logits(features, head), targets, features, cap)

    def piece(inputs):
        x, y = inputs
        losses, stats = reduce_logits(raw_logits(x, head), y, x, cap)
        return losses, stats._replace(features=None)

    cut = lambda x: x.reshape(x.shape[0], pieces, -1, *x.shape[2:]).swapaxes(0, 1)
    join = lambda x: x.swapaxes(0, 1).reshape(targets.shape)
    reduced = jax.lax.map(piece, (cut(features), cut(targets)))
    losses, stats = jax.tree.map(join, reduced)
    return losses, stats._replace(features=features)


def reduce_logits(
    raw: Logits, targets: Targets, features: Features, cap: float = 0.0
) -> tuple[Losses, Stats]:
    """Cross entropy in nats per target (0 where ignored) and the other reductions.

    Gradients flow through the losses and `Stats.features`; the other by-products are
    readings and carry none.
    """
    losses: Any = cross_entropy(cap, raw, targets)
    z = capped(jax.lax.stop_gradient(raw), cap)
    top = z.max(-1, keepdims=True)
    z = z - top
    log_sum = jnp.log(jnp.exp(z).sum(-1))
    p = jnp.exp(z - log_sum[..., None])
    entropy = log_sum - (p * z).sum(-1)
    return losses, Stats(features, log_sum + top[..., 0], entropy, (p * p).sum(-1))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def cross_entropy(cap: float, raw: Logits, targets: Targets) -> Losses:
    """-log softmax(capped(raw)) at the target, in nats; 0 where it is `IGNORED`.

    The backward pass computes the probabilities again from the raw logits, in one pass
    over them: it reads and writes memory once where the derivative of each operation
    would do so several times.
    """
    return _cross_entropy(cap, raw, targets)[0]


def _cross_entropy(cap, raw, targets):
    z = capped(raw, cap)
    top = z.max(-1)
    log_sum = jnp.log(jnp.exp(z - top[..., None]).sum(-1)) + top
    known = targets != IGNORED
    index = jnp.where(known, targets, 0)[..., None]
    picked = capped(jnp.take_along_axis(raw, index, -1)[..., 0], cap)
    losses = jnp.where(known, log_sum - picked, 0.0)
    return losses, (raw, targets, log_sum)


def _cross_entropy_backward(cap, saved, cotangent):
    raw, targets, log_sum = saved
    flat = jnp.tanh(raw / cap) if cap else None
    z = raw if flat is None else cap * flat
    p = jnp.exp(z - log_sum[..., None])
    slope = p - jax.nn.one_hot(targets, raw.shape[-1])
    if flat is not None:
        slope = slope * (1 - flat * flat)
    weight = jnp.where(targets != IGNORED, cotangent, 0.0)
    return weight[..., None] * slope, None


cross_entropy.defvjp(_cross_entropy, _cross_entropy_backward)
