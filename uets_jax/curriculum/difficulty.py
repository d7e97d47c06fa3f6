"""How hard a row of text is: seven measures, and their quantiles.

Every measure gives one number per row, the harder the larger. `rarity`,
`ngram_surprisal` and `length` read tokens and work on NumPy and on JAX arrays alike;
`compression` needs the host; `loss`, `entropy` and `progress` are by-products of
training.
"""

import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from uets_jax.component import Component
from uets_jax.curriculum.ngrams import Ngrams, library, log_unigram, surprisal
from uets_jax.errors import UserError, nearest
from uets_jax.types import IGNORED, Batch

METRICS = (
    "rarity",
    "ngram_surprisal",
    "compression",
    "length",
    "loss",
    "entropy",
    "progress",
)


def rarity(table: Ngrams, batch: Batch) -> Float[Any, " n"]:
    """Mean -log p_unigram of a row's tokens, in nats (Platanios et al. 2019)."""
    return row_means(-log_unigram(table)[batch.tokens], batch)


def ngram_surprisal(table: Ngrams, batch: Batch) -> Float[Any, " n"]:
    """Mean -log p of a row's tokens given up to two before them, in nats."""
    return row_means(surprisal(table, batch.tokens, batch.segments), batch)


def compression(
    batch: Batch, pieces: Sequence[bytes] | None = None
) -> Float[np.ndarray, " n"]:
    """Bytes after zlib over bytes before: what has no repetition is hard. Host only.

    Args:
      pieces: bytes of every token, as the tokenizer has them; None compresses the ids
        as two bytes each (four where an id needs them).
    """
    tokens = np.asarray(batch.tokens)
    if pieces is None:
        wide = tokens.astype("<u2" if tokens.max(initial=0) < 1 << 16 else "<u4")
        texts = [row.tobytes() for row in wide]
    else:
        texts = [b"".join(pieces[i] for i in row) for row in tokens.tolist()]
    ratio = [len(zlib.compress(text, 6)) / max(len(text), 1) for text in texts]
    return np.array(ratio, np.float32)


def length(batch: Batch, ends: Shaped[Any, " v"] | None = None) -> Float[Any, " n"]:
    """Mean, over a row's tokens, of the tokens that the token's document has there.

    Args:
      ends: bool by token id: which tokens end a sentence; then sentences count, and
        documents don't.
    """
    xp, parts = library(batch.tokens), batch.segments
    if ends is not None:
        stops = ends[batch.tokens].astype(np.int32)
        parts = xp.cumsum(stops, axis=1) - stops
    inside = (batch.targets != IGNORED).astype(np.int32)
    seen = xp.cumsum(inside, axis=1)
    starts = parts != xp.roll(parts, 1, axis=1)
    place = seen - _running_max(xp.where(starts, seen - inside, 0))
    return row_means((2 * place - 1).astype(np.float32), batch)  # sum: sizes squared


def document_lengths(
    tokens: Shaped[np.ndarray, " t"], eot: int, window: int
) -> Float[np.ndarray, " n"]:
    """`length` with whole documents, of every window of a split. Host only.

    Args:
      tokens: the split; `eot` starts every document.
      window: tokens per row; n = ceil((t - 1) / window).
    """
    starts = np.asarray(tokens) == eot
    document = np.cumsum(starts)
    sizes = np.bincount(document)[document][: len(starts) - 1].astype(np.float64)
    firsts = np.arange(0, len(sizes), window)
    seen = np.diff(np.append(firsts, len(sizes)))
    return (np.add.reduceat(sizes, firsts) / seen).astype(np.float32)


def loss(losses: Float[Any, "n l"], batch: Batch) -> Float[Any, " n"]:
    """Mean loss of a row's targets, in nats, from any forward pass."""
    return row_means(losses, batch)


def entropy(entropies: Float[Any, "n l"], batch: Batch) -> Float[Any, " n"]:
    """Mean entropy of the predictions of a row, in nats; `Stats.entropy` will do."""
    return row_means(entropies, batch)


def progress(gaps: Float[Any, " k"], bins: Int[Any, " n"]) -> Float[Any, " n"]:
    """Minus the drop of the loss in a row's bin (see `curriculum.progress.gap`)."""
    return -gaps[bins]


def row_means(values: Float[Any, "n l"], batch: Batch) -> Float[Any, " n"]:
    """Means over the places that have a target; 0 for a row of padding."""
    known = batch.targets != IGNORED
    number = known.sum(1).astype(np.float32)
    xp = library(values)
    return xp.where(known, values, 0.0).sum(1) / xp.maximum(number, 1.0)


def _running_max(x: Int[Any, "n l"]) -> Int[Any, "n l"]:
    if isinstance(x, jax.Array):
        return jax.lax.cummax(x, axis=1)
    return np.maximum.accumulate(x, axis=1)


def assess(
    name: str,
    batches: Iterable[Batch],
    table: Ngrams | None = None,
    pieces: Sequence[bytes] | None = None,
) -> Float[np.ndarray, " n"]:
    """One of the four measures that need no model, of all rows of a corpus, in order.

    Raises:
      UserError: an unknown measure, or one that is a by-product of training.
    """
    ways: dict[str, Callable[[Batch], Any]] = {
        "compression": lambda batch: compression(batch, pieces),
        "length": length,
    }
    if table is not None:
        counts = jax.tree.map(np.asarray, table)
        ways["rarity"] = lambda batch: rarity(counts, batch)
        ways["ngram_surprisal"] = lambda batch: ngram_surprisal(counts, batch)
    if name not in ways:
        why = nearest(name, ways)
        if name in METRICS[:2]:
            why = "needs a table of counts; give fit_ngrams(...)"
        raise UserError(f"difficulty {name!r}: {why}")
    found = [np.asarray(ways[name](one), np.float32) for one in batches]
    return np.concatenate([np.zeros(0, np.float32), *found])


def ranks(values: Float[Any, " n"]) -> Float[np.ndarray, " n"]:
    """The quantile in [0, 1] of every row of a finite corpus; ties share their mean."""
    values = np.asarray(values)
    ordered = np.sort(values)
    low, high = (np.searchsorted(ordered, values, side=s) for s in ("left", "right"))
    return ((low + high - 1) / 2 / max(len(values) - 1, 1)).astype(np.float32)


class Recent(NamedTuple):
    """The last values of a stream, the newest first; NaN where none was yet."""

    values: Float[Array, " size"]


def running_ranks(size: int = 1024) -> Component:
    """Quantiles in [0, 1] among the last `size` values of a stream.

    apply: (state, values [n]) -> (ranks [n], state); n is at most `size`. The values
    themselves count, so the first call ranks them among each other. Values drift with
    the model, and these quantiles follow. O(size) memory, 2 n size
    comparisons. Values that are not finite rank highest and don't count.
    """

    def init(params: Any) -> Recent:
        return Recent(jnp.full(size, jnp.nan))

    def apply(
        state: Recent, values: Float[Array, " n"]
    ) -> tuple[Float[Array, " n"], Recent]:
        if values.shape[0] > size:
            raise UserError(f"running_ranks: {values.shape[0]} values into {size}")
        new = jax.lax.stop_gradient(values).astype(jnp.float32)
        state = Recent(jnp.concatenate([new, state.values])[:size])
        return rank_among(state, new), state

    return Component(init, apply)


def rank_among(state: Recent, values: Float[Array, " n"]) -> Float[Array, " n"]:
    """Quantiles of values among those that `running_ranks` has seen last."""
    known = jnp.isfinite(state.values)
    seen = jnp.where(known, state.values, jnp.nan)[None, :]  # NaN compares false
    low = (seen < values[:, None]).sum(1)
    high = jnp.maximum((seen <= values[:, None]).sum(1), low + 1)
    middle = (low + high - 1).astype(jnp.float32) / 2
    rank = jnp.clip(middle / jnp.maximum(known.sum() - 1, 1), 0.0, 1.0)
    return jnp.where(jnp.isfinite(values), rank, 1.0)
