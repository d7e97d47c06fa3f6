"""What training knows about each kind of text: a record per bucket, O(K) in memory.

A bucket is a cell of quantile bins of static features of a text (lexical quality,
rarity, length), never its provenance. The step's by-products update the buckets of the
rows that were trained on; a fresh candidate, that no model has seen, gets its bucket's.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from uets_jax.component import Component
from uets_jax.selection.scores import RowScores

FAST, SLOW = 1 / 64, 1 / 512  # shares of a new row in the moving averages


class BucketState(NamedTuple):
    """Moving averages of each bucket, not yet debiased; all leaves are f32 [K].

    seen:      rows that went into the bucket.
    loss_fast: mean loss of its last 1 / fast rows, nats.
    loss_slow: mean loss of its last 1 / slow rows, nats.
    scores:    means of all row scores over its last 1 / fast rows.
    """

    seen: Float[Array, " k"]
    loss_fast: Float[Array, " k"]
    loss_slow: Float[Array, " k"]
    scores: RowScores


class BucketRecord(NamedTuple):
    """What is known of buckets [K], or of rows by their buckets [B].

    progress is `standardised`; loss_slow is what is usual in the bucket, nats.
    """

    seen: Float[Array, " n"]
    progress: Float[Array, " n"]
    loss_slow: Float[Array, " n"]
    scores: RowScores


def init(buckets: int) -> BucketState:
    """Nothing seen, in `buckets` buckets."""
    zeros = lambda: jnp.zeros(buckets, jnp.float32)
    return BucketState(
        zeros(), zeros(), zeros(), RowScores(*(zeros() for _ in range(7)))
    )


def update(
    state: BucketState,
    ids: Int[Array, " b"],
    scores: RowScores,
    fast: float | Array = FAST,
    slow: float | Array = SLOW,
) -> BucketState:
    """Moves each bucket towards the mean of its rows in the batch.

    A bucket with m rows moves by 1 - (1 - rate)^m, so time runs in its own rows: one
    that the batch lacks keeps its record, and a rare one is as well averaged as a
    common one. Rows whose id is outside [0, K) are left out, and so are rows with a
    score that is not finite.

    Args:
      state: before the batch.
      ids: bucket of each row.
      scores: of each row, [B].
      fast: share of one row in the fast averages, in (0, 1); a scalar or [K].
      slow: the same for `loss_slow`; less than `fast`.
    """
    values = jnp.stack(scores, 1)
    good = jnp.isfinite(values).all(1)
    places = jnp.arange(len(state.seen))
    inside = ((ids[None] == places[:, None]) & good[None]).astype(jnp.float32)
    rows = inside.sum(1)
    sums = jnp.matmul(
        inside,
        jnp.where(good[:, None], values, 0.0),
        precision=jax.lax.Precision.HIGHEST,
    )
    means = RowScores(*(sums / jnp.maximum(rows, 1)[:, None]).T)

    def moved(rate: float | Array, old: Array, new: Array) -> Array:
        return jnp.where(rows > 0, old + _weight(rate, rows) * (new - old), old)

    return BucketState(
        state.seen + rows,
        moved(fast, state.loss_fast, means.loss),
        moved(slow, state.loss_slow, means.loss),
        jax.tree.map(lambda old, new: moved(fast, old, new), state.scores, means),
    )


def records(
    state: BucketState, fast: float | Array = FAST, slow: float | Array = SLOW
) -> BucketRecord:
    """The debiased record of each bucket [K], with the rates of `update`.

    A bucket without rows gets the mean record of those that have some; progress 0.
    """
    known = state.seen > 0
    filled = lambda x: jnp.where(known, x, _mean(x, known))
    learned = progress(state, fast, slow)
    return BucketRecord(
        state.seen,
        standardised(learned, known),
        filled(state.loss_slow / _debias(state, slow)),
        jax.tree.map(lambda x: filled(x / _debias(state, fast)), state.scores),
    )


def progress(
    state: BucketState, fast: float | Array = FAST, slow: float | Array = SLOW
) -> Float[Array, " k"]:
    """Learning progress loss_slow - loss_fast of each bucket, nats; 0 if never seen.

    Positive while the bucket's loss falls. Where it falls by g per row of the bucket,
    it comes to g (1 / slow - 1 / fast); noise that can't be learned has none.
    """
    fast_loss = state.loss_fast / _debias(state, fast)
    return state.loss_slow / _debias(state, slow) - fast_loss


def standardised(
    values: Float[Array, " k"], known: Bool[Array, " k"], least: float = 1e-3
) -> Float[Array, " k"]:
    """Values less their mean, over their deviation, among known buckets; 0 elsewhere.

    The deviation counts as sqrt(deviation^2 + least^2), so that what hardly differs
    (nats, for the losses) is not blown up.
    """
    apart = jnp.where(known, values - _mean(values, known), 0.0)
    return apart / jnp.sqrt(_mean(apart * apart, known) + least**2)


def lookup(record: BucketRecord, ids: Int[Array, " b"]) -> BucketRecord:
    """The record of each row's bucket, [B]."""
    return jax.tree.map(lambda x: x[ids], record)


def bucket_of(
    features: tuple[Float[Array, " b"], ...], edges: tuple[Float[Array, "..."], ...]
) -> Int[Array, " b"]:
    """The cell of each row in the product of the features' bins.

    Feature j with q_j ascending edges has the bins 0 (not above the first edge) to q_j
    (above all), so K = prod (q_j + 1); the last feature's bin changes quickest.
    """
    cell = jnp.zeros(len(features[0]), jnp.int32)
    for feature, bounds in zip(features, edges, strict=True):
        above = feature[:, None] > jnp.asarray(bounds)[None]
        cell = cell * (bounds.shape[0] + 1) + above.sum(1, dtype=jnp.int32)
    return cell


def buckets(count: int, fast: float = FAST, slow: float = SLOW) -> Component:
    """As a component: `apply(state, ids [B], scores) -> (records [K], state)`."""

    def apply(
        state: BucketState, ids: Int[Array, " b"], scores: RowScores
    ) -> tuple[BucketRecord, BucketState]:
        after = update(state, ids, scores, fast, slow)
        return records(after, fast, slow), after

    def start(params: Any) -> BucketState:
        return init(count)

    return Component(init=start, apply=apply)


def _debias(state: BucketState, rate: float | Array) -> Array:
    """Total weight of the rows in each bucket's average; 1 where there is none."""
    return jnp.where(state.seen > 0, _weight(rate, state.seen), 1.0)


def _weight(rate: float | Array, rows: Array) -> Array:
    """1 - (1 - rate)^rows, without cancellation where the rate is small."""
    return -jnp.expm1(rows * jnp.log1p(-jnp.asarray(rate, jnp.float32)))


def _mean(values: Array, known: Array) -> Array:
    """Mean over the known ones; 0 if there are none."""
    return jnp.where(known, values, 0.0).sum() / jnp.maximum(known.sum(), 1)
