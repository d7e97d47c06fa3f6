"""What several predictions of one text say together: their mean and how they differ.

They are drawn one after the other and only their sums are kept, so the memory is that
of one prediction and one running mean, whatever their number.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import entr
from jaxtyping import Array, Float


class Predictive(NamedTuple):
    """Of S drawn predictions p_s.

    mean:     p = mean_s p_s.
    entropy:  H[p], nats.
    bald:     H[p] - mean_s H[p_s]: information that a label has about which s, nats.
    variance: sum over classes of Var_s p_s.
    """

    mean: Float[Array, "*n v"]
    entropy: Float[Array, "*n"]
    bald: Float[Array, "*n"]
    variance: Float[Array, "*n"]


def predictive(logits: Callable[[Any], Float[Array, "*n v"]], draws: Any) -> Predictive:
    """The predictions of all draws, one after the other.

    Args:
      logits: of one draw.
      draws: arrays with a leading axis of S: keys, or parameter sets.
    """

    def add(sums: Any, draw: Any) -> tuple[Any, None]:
        z = jax.nn.log_softmax(logits(draw).astype(jnp.float32))
        p = jnp.exp(z)
        found = (p, -(p * z).sum(-1), (p * p).sum(-1))
        return jax.tree.map(jnp.add, sums, found), None

    number = len(jax.tree.leaves(draws)[0])
    first = jax.eval_shape(lambda: jax.tree.map(lambda x: x[0], draws))
    shape = jax.eval_shape(logits, first).shape
    zeros = (jnp.zeros(shape), jnp.zeros(shape[:-1]), jnp.zeros(shape[:-1]))
    sums, _ = jax.lax.scan(add, zeros, draws)
    mean, entropy, collision = jax.tree.map(lambda x: x / number, sums)
    whole = entr(mean).sum(-1)
    bald = jnp.maximum(whole - entropy, 0.0)
    variance = jnp.maximum(collision - (mean * mean).sum(-1), 0.0)
    return Predictive(mean, whole, bald, variance)
