"""How surprising a token is, by counts: a unigram table, and hashed longer n-grams.

Tables are filled on the host. What reads them is written once and works on NumPy and
on JAX arrays alike, so a row has the same surprisal on the host and in the step.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from uets_jax.errors import UserError

CHUNK = 1 << 20  # tokens counted at a time

_FIRST, _SECOND = np.uint32(0x9E3779B1), np.uint32(0x85EBCA6B)


class Ngrams(NamedTuple):
    """Counts of n-grams of up to three tokens, none across a document's start.

    unigram: by token id.
    bigram, trigram: by `bucket_of` their tokens, each in a table of its own.
    """

    unigram: Float[Array, " v"]
    bigram: Float[Array, " buckets"]
    trigram: Float[Array, " buckets"]


def fit_ngrams(
    tokens: Shaped[np.ndarray, " t"], vocab: int, eot: int, buckets: int = 1 << 18
) -> Ngrams:
    """Counts of a split in which `eot` starts every document; a memmap will do.

    Raises:
      UserError: no tokens, an id beyond `vocab`, or buckets that are no power of two.
    """
    if not 2 <= buckets <= 1 << 30 or buckets & (buckets - 1):
        raise UserError(f"buckets: must be a power of two up to 2**30, got {buckets}")
    if not len(tokens):
        raise UserError("difficulty: no tokens to count; give some text")
    one = np.zeros(vocab, np.int64)
    two, three = np.zeros((2, buckets), np.int64)
    for start in range(0, len(tokens), CHUNK):
        ids = np.asarray(tokens[max(start - 2, 0) : start + CHUNK]).astype(np.int64)
        if ids.max() >= vocab or ids.min() < 0:
            raise UserError(f"difficulty: token id {ids.max()} is not below {vocab}")
        new = np.arange(len(ids)) >= min(start, 2)  # the rest was counted before
        back, hashed = contexts(ids[None], ids[None] == eot, buckets)
        one += np.bincount(ids[new], minlength=vocab)
        two += np.bincount(hashed[0][0][new & back[0][0]], minlength=buckets)
        three += np.bincount(hashed[1][0][new & back[1][0]], minlength=buckets)
    return Ngrams(*(jnp.asarray(c, jnp.float32) for c in (one, two, three)))


def log_unigram(table: Ngrams) -> Float[Any, " v"]:
    """log p of each token in nats, with one pseudo-count per token."""
    seen = table.unigram + 1.0
    return library(seen).log(seen / seen.sum())


def surprisal(
    table: Ngrams,
    tokens: Int[Any, "n l"],
    segments: Int[Any, "n l"],
    strength: float = 2.0,
) -> Float[Any, "n l"]:
    """-log p(token | at most two tokens before it, in its document) in nats.

        p_n(w | c) = (count(c w) + k p_{n-1}(w | c')) / (count(c) + k),  k = strength,

    p_1 being the unigram's and c' = c without its first token: a Dirichlet prior whose
    mean is the shorter context (MacKay & Peto 1995). A context that was never seen
    backs off to the shorter one. Costs some 40 operations and 6 reads per token.
    """
    xp = library(tokens)
    buckets = table.bigram.shape[0]
    starts = segments != xp.roll(segments, 1, axis=1)
    (two, three), (pair, triple) = contexts(tokens, starts, buckets)
    last = xp.roll(tokens, 1, axis=1)
    p = xp.exp(log_unigram(table))[tokens]
    seen, context = table.bigram[pair], table.unigram[last]
    p = xp.where(two, (seen + strength * p) / (context + strength), p)
    seen, context = table.trigram[triple], table.bigram[xp.roll(pair, 1, axis=1)]
    p = xp.where(three, (seen + strength * p) / (context + strength), p)
    return -xp.log(xp.minimum(p, 1.0))


def contexts(
    tokens: Int[Any, "n l"], starts: Shaped[Any, "n l"], buckets: int
) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Of every token: has it one and two tokens before it, and both n-grams' buckets.

    Args:
      starts: where a document begins; a row begins one, too.
    """
    xp = library(tokens)
    place = xp.arange(tokens.shape[1])[None, :]
    two = (place > 0) & ~starts
    three = two & (place > 1) & ~xp.roll(starts, 1, axis=1)
    last, first = (xp.roll(tokens, back, axis=1) for back in (1, 2))
    pair = bucket_of(buckets, last, tokens)
    return (two, three), (pair, bucket_of(buckets, first, last, tokens))


def bucket_of(buckets: int, *tokens: Int[Any, "..."]) -> Int[Any, "..."]:
    """int32 below `buckets`, a power of two: a hash of tokens in their order."""
    mixed = tokens[0].astype(np.uint32) + np.uint32(len(tokens))
    for token in (*tokens[1:], tokens[0]):
        mixed = (mixed ^ (mixed >> np.uint32(15))) * _FIRST
        mixed = (mixed ^ token.astype(np.uint32) ^ (mixed >> np.uint32(13))) * _SECOND
    return (mixed >> np.uint32(33 - buckets.bit_length())).astype(np.int32)


def library(x: Any) -> Any:
    """The array library that `x` belongs to: jax.numpy or NumPy."""
    return jnp if isinstance(x, jax.Array) else np
