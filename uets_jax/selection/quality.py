"""What the text of offered windows is worth, judged by the documents they are part of.

A window of 128 tokens is too short for a verdict: in natural order or not is told with
an AUC of 0.94, of whole documents 0.997. So windows are offered in pieces of several
consecutive ones, and each token is given the mean of its document's part of the piece.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from uets_jax.selection.blind import BlindState, order_terms
from uets_jax.selection.lexical import LexicalState, lex_terms
from uets_jax.selection.natural import naturalness

TEXTS = 16  # documents told apart in a piece; what follows counts as one


def texts_of(tokens: Int[Array, "n l"], eot: Array) -> Int[Array, "n l"]:
    """Which document of its piece a token belongs to; a separator begins its own."""
    starts = jnp.cumsum(tokens == eot, axis=1, dtype=jnp.int32)
    return jnp.minimum(starts, TEXTS - 1)


def document_means(
    total: Float[Array, "n l"], number: Float[Array, "n l"], texts: Int[Array, "n l"]
) -> Float[Array, "n l"]:
    """At each token the mean over its document's part of the piece."""
    rows = jnp.arange(len(texts))[:, None] * TEXTS
    flat = (texts + rows).ravel()
    add = lambda x: jax.ops.segment_sum(x.ravel(), flat, len(texts) * TEXTS)
    means = add(total) / jnp.maximum(add(number), 1)
    return means[flat].reshape(texts.shape)


def likeness(
    state: LexicalState, tokens: Int[Array, "n l"], eot: Array, run: int
) -> Float[Array, " n"]:
    """How much the wording of windows is that of the target sample, in nats.

    Args:
      state: of `lexical.fit`.
      tokens: windows; each `run` of them are consecutive.
      eot: id of the separator between documents.
      run: windows per piece.
    """
    pieces = tokens.reshape(-1, run * tokens.shape[1])
    texts = texts_of(pieces, eot)
    total, number = lex_terms(state, pieces, texts)
    means = document_means(total, number.astype(jnp.float32), texts)
    return means.reshape(tokens.shape).mean(1)


def order(
    state: BlindState, typical: Array, tokens: Int[Array, "n l"], eot: Array, run: int
) -> Float[Array, " n"]:
    """Naturalness of windows: 0 at best; see `blind` and `natural`.

    Args:
      state: of `blind.fit_blind`.
      typical: order gain of natural text.
      tokens: windows; each `run` of them are consecutive.
      eot: id of the separator between documents.
      run: windows per piece.
    """
    pieces = tokens.reshape(-1, run * tokens.shape[1])
    texts = texts_of(pieces, eot)
    gains, used = order_terms(state, pieces, texts)
    means = document_means(gains, used.astype(jnp.float32), texts)
    found: Array = naturalness(means, typical)
    return found.reshape(tokens.shape).mean(1)
