"""Hashed n-gram tables at the input: parameters that cost memory, but no matmul.

The embedding of a token is completed by one row per n-gram that ends in it, found by a
hash: a look-up gives what a layer would have to compute from the two tokens before.
Rows start at zero, so that a table added to a trained model changes nothing.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from uets_jax.config import ModelConfig

NAMES = {2: "bigram", 3: "trigram"}
# Odd multipliers, the fractional part of the golden ratio and two primes (Knuth 6.4).
_FACTORS = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)


def ngram_hash(
    tokens: Int[Array, "b l"],
    order: int,
    segments: Int[Array, "b l"] | None = None,
) -> UInt32[Array, "b l"]:
    """A hash of the `order` tokens that end at each place, uniform over 32 bits.

    Before the first token of a row stands a token of its own; with `segments`, before
    the first one of every document.
    """
    before = ((0, 0), (order - 1, 0))
    known = jnp.pad(tokens + 1, before).astype(jnp.uint32)
    owner = None if segments is None else jnp.pad(segments, before, mode="edge")
    mixed = jnp.zeros(tokens.shape, jnp.uint32)
    for back in range(order):
        start = order - 1 - back
        token = known[:, start : start + tokens.shape[1]]
        if owner is not None:
            same = owner[:, start : start + tokens.shape[1]] == segments
            token = jnp.where(same, token, 0)
        mixed ^= token * jnp.uint32(_FACTORS[back % 3])
        mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(_FACTORS[(back - 1) % 3])
    return mixed ^ (mixed >> 13)


def table_rows(
    config: ModelConfig, tokens: Int[Array, "b l"], order: int, segments: Any
) -> Int[Array, "b l"]:
    """The row of the order's table that each place reads."""
    apart = segments if config.mask_documents else None
    rows = ngram_hash(tokens, order, apart) % jnp.uint32(config.memory_rows)
    return rows.astype(jnp.int32)


class NGramTables(nn.Module):
    """Token ids [B, L] to the sum of their n-grams' rows [B, L, D].

    With `mask_documents` no n-gram reaches into the document before.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "b l"], segments: Int[Array, "b l"]
    ) -> Float[Array, "b l d"]:
        c = self.config
        total = jnp.zeros((*tokens.shape, c.width), c.dtype)
        for order in range(2, c.memory_order + 1):
            table = Rows((c.memory_rows, c.width), name=NAMES[order])()
            table = table if c.memory_trained else jax.lax.stop_gradient(table)
            rows = table_rows(c, tokens, order, segments)
            total = total + table[rows].astype(c.dtype)
        return total


class Rows(nn.Module):
    """A trainable table that starts at zero."""

    shape: tuple[int, int]

    @nn.compact
    def __call__(self) -> Float[Array, "n d"]:
        return self.param("table", nn.initializers.zeros, self.shape)
