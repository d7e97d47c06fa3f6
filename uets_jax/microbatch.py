"""Loss and gradient of a weighted batch, in one piece or in several, one at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from uets_jax.types import IGNORED, Batch, Metrics, Params, Stats

Forward = Callable[..., tuple[Any, Any]]
Weights = Float[Array, " b"] | None


def weighted_sum(losses: Float[Array, "b l"], weights: Weights) -> Float[Array, ""]:
    """Sum of token losses, each row times its weight; `None` weighs all by 1."""
    return losses.sum() if weights is None else jnp.vdot(weights, losses.sum(1))


def value_and_grad(forward: Forward, parts: int = 1, by_products: bool = False):
    """Builds `(params, batch, weights, key=None) -> ((loss, aux, routed), grads)`.

    loss = sum_i w_i sum_t loss_it / (number of targets in the whole batch), in nats per
    token, so that any number of `parts` gives the same loss and gradient. aux is
    (token_losses [B, L], Stats) with `by_products`, else None. With `parts` > 1 the
    rows are cut into interleaved groups (no traffic between devices that share axis 0)
    and scanned over: activations of one group live at a time. A key makes the forward
    pass a noisy one (dropout), each group with a key of its own.

    Of experts, `routed` holds the metrics, else nothing; `Stats.penalty` is part of
    what the gradient is of, but not of loss. Groups route on their own: both are means
    over them, and the Stats in aux are without them.
    """

    def part(
        params: Params,
        batch: Batch,
        weights: Weights,
        key: Key[Array, ""] | None,
        targets: Array,
    ):
        noise = () if key is None else (key,)
        losses, stats = forward(params, batch, *noise)
        loss = weighted_sum(losses, weights) / targets
        routed, penalty = {}, getattr(stats, "penalty", None)
        if penalty is not None:
            routed = _routed(stats)
            stats = stats._replace(penalty=None, load=None, dropped=None)
        total = loss if penalty is None else loss + penalty / parts
        return total, (loss, (losses, stats) if by_products else None, routed)

    grad = jax.grad(part, has_aux=True)

    def whole(
        params: Params,
        batch: Batch,
        weights: Weights,
        key: Key[Array, ""] | None = None,
    ):
        targets = jnp.maximum((batch.targets != IGNORED).sum(), 1).astype(jnp.float32)
        if parts == 1:
            grads, seen = grad(params, batch, weights, key, targets)
            return seen, grads

        def step(carry, rows):
            grads, (loss, aux, routed) = grad(params, *rows, targets)
            return jax.tree.map(jnp.add, carry, (loss, grads)), (aux, routed)

        zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
        rows = jax.tree.map(lambda x: _cut(x, parts), (batch, weights))
        keys = None if key is None else jax.random.split(key, parts)
        (loss, grads), (aux, routed) = jax.lax.scan(step, zero, (*rows, keys))
        routed = jax.tree.map(lambda x: x.mean(0), routed)
        return (loss, jax.tree.map(_join, aux), routed), grads

    return whole


def _routed(stats: Stats) -> Metrics:
    """Scalars of `stats`; of the load the largest share of any layer and expert."""
    return {
        "router_load_max": jnp.max(stats.load),
        "router_dropped": stats.dropped,
        "router_penalty": stats.penalty,
    }


def _cut(x: Array, parts: int) -> Array:
    return x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)


def _join(x: Array) -> Array:
    return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])
