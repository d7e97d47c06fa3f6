"""Mixture of experts: each token through the best k of E MLPs (Shazeer et al. 2017).

Rows are moved to their experts and back by look-ups of static shape, so that an expert
computes the rows it has places for and nothing else. An expert's places go to the
tokens in the order of the batch, row after row: what a row gets can depend on the rows
before it, and on no later token. `capacity` 0 leaves nothing to compete for.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from uets_jax.config import ModelConfig, expert_rows
from uets_jax.models.layers import feed_forward, gates_of, tap, wide

Hidden = Float[Array, "b l d"]


class Routing(NamedTuple):
    """How one layer's tokens were spread; stacked, how each layer's were.

    penalty: E sum_e f_e P_e of Switch (Fedus et al. 2021), at least 1 where the share
             f of assignments and the mean probability P agree: 1 is even.
    load:    f, before anything is dropped.
    dropped: share of assignments that found no place.
    """

    penalty: Float[Array, "*layers"]
    load: Float[Array, "*layers e"]
    dropped: Float[Array, "*layers"]


class Places(NamedTuple):
    """A one-to-one map between assignments and the rows of experts; both are flat.

    of:     the place [N k] of each assignment, C E where it found none.
    source: the assignment [E C] in each place, N k where it is empty.
    """

    of: Int[Array, " a"]
    source: Int[Array, " p"]


def choose(
    logits: Float[Array, "n e"], k: int
) -> tuple[Float[Array, "n k"], Int[Array, "n k"]]:
    """Weights, which sum to 1, and numbers of each token's k best experts.

    The weights are a softmax over the k logits. A single weight is 1 whatever its
    logit; it gets the gradient of log p, p from the softmax over all experts, so that
    the router learns from the loss.
    """
    _, experts = jax.lax.top_k(jax.lax.stop_gradient(logits), k)
    if k == 1:
        p = jnp.take_along_axis(jax.nn.softmax(logits), experts, 1)
        return p / jax.lax.stop_gradient(p), experts
    return jax.nn.softmax(jnp.take_along_axis(logits, experts, 1)), experts


def places(experts: Int[Array, " a"], sent: Int[Array, " e"], rows: int) -> Places:
    """Gives each expert's `rows` places to the first assignments that name it.

    Args:
      experts: of each assignment, in order of priority.
      sent: how many name each expert.
      rows: of each expert.
    """
    total, start = experts.size, jnp.cumsum(sent) - sent
    order = jnp.argsort(experts, stable=True)
    rank = jnp.argsort(order) - start[experts]
    of = jnp.where(rank < rows, experts * rows + rank, sent.size * rows)
    place = jnp.arange(rows)[None, :]
    index = jnp.minimum(start[:, None] + place, total - 1)
    source = jnp.where(place < sent[:, None], order[index], total)
    return Places(of, source.reshape(-1))


@jax.custom_vjp
def move(
    x: Float[Array, "m d"], source: Int[Array, " n"], target: Int[Array, " m"]
) -> Float[Array, "n d"]:
    """The rows x[source], zeros where `source` is out of range.

    `target` says where each row of x has gone, out of range if nowhere: so the
    gradient is a look-up too, and no scatter, whose sums have no fixed order.
    """
    return x.at[source].get(mode="fill", fill_value=0)


def _move_forward(x, source, target):
    return move(x, source, target), (source, target)


def _move_backward(saved, cotangent):
    source, target = saved
    return move(cotangent, target, source), None, None


move.defvjp(_move_forward, _move_backward)


class Router(nn.Module):
    """Scores of the experts for each token, in float32."""

    experts: int

    @nn.compact
    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n e"]:
        shape = (x.shape[1], self.experts)
        w = self.param("w", nn.initializers.normal(0.02), shape)
        x = wide(x)
        return jnp.einsum("nd,de->ne", x, w.astype(x.dtype))


class Experts(nn.Module):
    """sum_k weight_k MLP_k(x) over each token's experts; 0 for one that is full.

    A token's other weights stay as they are where an expert is full. Equal experts with
    room for all are the one MLP that they equal.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Hidden) -> tuple[Hidden, Routing]:
        c, flat = self.config, x.reshape(-1, x.shape[-1])
        k, e, rows = c.active_experts, c.experts, expert_rows(c, flat.shape[0])
        logits = Router(e, name="router")(flat)
        weights, experts = choose(logits, k)
        sent = (experts.reshape(-1, 1) == jnp.arange(e)[None, :]).sum(0)
        to = places(experts.reshape(-1), sent, rows)

        def dispatch(x: Float[Array, "n d"]) -> Float[Array, "e c d"]:
            each = jnp.repeat(x, k, axis=0)
            return move(each, to.source, to.of).reshape(e, rows, -1)

        def combine(y: Float[Array, "e c d"]) -> Hidden:
            each = move(y.reshape(e * rows, -1), to.of, to.source)
            each = each.reshape(-1, k, y.shape[-1])
            mean = (each * weights[:, :, None].astype(y.dtype)).sum(1)
            return mean.reshape(*x.shape[:2], -1)

        gates = gates_of(self, "hidden", x)
        if gates is not None:
            spread = jnp.broadcast_to(gates[:, None, :], (*x.shape[:2], c.hidden))
            gates = dispatch(spread.reshape(-1, c.hidden))
        y, hidden = feed_forward(c, dispatch(flat), gates, e)
        if self.is_mutable_collection("taps"):
            tap(self, "hidden", combine(hidden))
        return combine(y), _routing(logits, sent, rows)


def _routing(logits: Float[Array, "n e"], sent: Int[Array, " e"], rows: int) -> Routing:
    load = (sent / sent.sum()).astype(logits.dtype)
    even = sent.size * (load * jax.nn.softmax(logits).mean(0)).sum()
    dropped = jnp.maximum(sent - rows, 0).sum() / sent.sum()
    return Routing(even, load, dropped)
