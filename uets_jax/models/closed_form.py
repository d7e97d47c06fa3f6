"""Starting parameters in closed form: what counts of the training text already know.

The first steps of training find what a count would have said: how often each token
follows each other one. Here embedding and head begin as the best low-rank model of the
bigrams, and the n-gram tables with what the tokens before tell beside that:

1. embedding, head: a truncated, randomised SVD (Halko et al. 2011, arXiv:0909.4061) of
   the pointwise mutual information of neighbours, weighted by the square roots of both
   frequencies (Levy & Goldberg 2014), the log unigram in a coordinate of its own; then
   `REFINED` full-batch steps of Adam on the cross entropy of the bigrams, through the
   model's final norm and soft-cap.
2. tables: with w(y) the head's vector of a token and E[w] its mean under what shorter
   n-grams say, the row of a bucket gets one step along its mean gradient,

       row = STEP / h * sum (w(y) - E[w]) / (n + SHRINK),

   over its n places; h is the mean curvature, the variance of w per coordinate. Buckets
   that are read most often get Nesterov's steps to where the model's own mean of w is
   the counted one. A longer n-gram starts from there; for rarer buckets, from the mean
   with `BACKED` pseudo-counts of the shorter one.

Where blocks begin as the identity (`zero_init`) the untrained model is exactly that
n-gram model; elsewhere nearly so. All of it is JAX, so the ledger counts it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from uets_jax.config import ModelConfig
from uets_jax.models.backoff import Tables
from uets_jax.models.head import capped
from uets_jax.models.layers import Norm
from uets_jax.models.memory import NAMES, table_rows
from uets_jax.types import IGNORED, Batch, Params

LARGEST = 8192  # vocabulary: its square is held in memory
REFINED, RATE = 20, 0.1
STEP, SHRINK, BACKED = 0.14, 5.0, 2.0
FITTED, MOVES, MOMENTUM, PUSH = 8192, 8, 0.7, 0.57  # rows, steps, steps' sizes
AT_ONCE = 1024  # rows that are fitted together
OVERSAMPLED, POWERS = 8, 2  # of the randomised SVD
CONSTANT = 2.0  # the coordinate that carries the log unigram, in units of the others

Square = Float[Array, "v v"]
Matrix = Float[Array, "v d"]
Rows = Float[Array, "n d"]
Vector = Float[Array, " d"]


class Read(NamedTuple):
    """A text that was counted.

    text:    windows [chunks, R, L]; one chunk is in work at a time.
    backoff: tables of a back-off model, where the model has one.
    """

    text: Batch
    backoff: Tables | None = None


def closed_form(config: ModelConfig, params: Params, read: Read) -> Params:
    """`params` with embedding, head and n-gram tables read off a text.

    Args:
      config: of the model: an untied head, a vocabulary of at most `LARGEST`.
      params: fresh ones; all that is not named here stays.
      read: the text, and what was counted of it before.
    """
    text = read.text
    counts = bigram_counts(text, config.vocab)
    table, head = bigram_model(config, params["final_norm"], counts)
    new = {**params, "embed": {"table": table}, "head": {"w": head.T}}
    if config.memory_rows:
        rows = ngram_rows(config, new, counts, text)
        new["memory"] = {NAMES[order]: {"table": r} for order, r in rows.items()}
    if config.backoff_order:
        new["backoff"] = read.backoff
    return jax.tree.map(lambda x, like: x.astype(like.dtype), new, params)


def bigram_counts(text: Batch, vocab: int) -> Square:
    """How often token j is the target of token i, [V, V]."""

    def add(counts: Square, chunk: Batch) -> tuple[Square, None]:
        known = (chunk.targets != IGNORED).astype(counts.dtype)
        return counts.at[chunk.tokens, chunk.targets].add(known), None

    return jax.lax.scan(add, jnp.zeros((vocab, vocab)), text)[0]


def bigram_model(config: ModelConfig, norm: Any, counts: Square) -> tuple[Matrix, ...]:
    """(embedding, transposed head) of the model's width that predict bigrams.

    Args:
      norm: parameters of the final norm.
      counts: of `bigram_counts`.
    """
    layer = Norm(config.norm, config.bias)
    normed = lambda table: layer.apply({"params": norm}, table)
    share = counts / counts.sum()

    def loss(pair: tuple[Matrix, ...]) -> Float[Array, ""]:
        table, head = pair
        z = capped(normed(table) @ head.T, config.softcap)
        log_sum = jax.nn.logsumexp(z, axis=1)
        return (share.sum(1) * log_sum).sum() - (share * z).sum()

    tx = optax.adam(optax.linear_schedule(RATE, 0.0, REFINED), b1=0.8, b2=0.95)

    def refine(carry: Any, _: None) -> tuple[Any, None]:
        pair, state = carry
        updates, state = tx.update(jax.grad(loss)(pair), state)
        return (optax.apply_updates(pair, updates), state), None

    pair: Any = factors(config, counts)
    (table, head), _ = jax.lax.scan(refine, (pair, tx.init(pair)), length=REFINED)[0]
    return Norm(config.norm).apply({"params": _ones(table)}, table), head


def _ones(table: Matrix) -> dict[str, Array]:
    """A norm's gains, so that the embedding's rows have a mean square of one."""
    return {"scale": jnp.ones(table.shape[1])}


def factors(config: ModelConfig, counts: Square) -> tuple[Matrix, Matrix]:
    """(embedding, transposed head) of the truncated SVD, before any refinement."""
    vocab, rank = config.vocab, config.width - 1
    p = counts.sum(1, keepdims=True) + 1.0
    q = counts.sum(0, keepdims=True) + 0.5
    prior = counts.sum() / (16 * vocab)  # pseudo-counts of a row
    p, q = p / p.sum(), q / q.sum()
    shift = jnp.log1p(counts / (prior * q))
    left, right = jnp.sqrt(p), jnp.sqrt(q)
    u, s, v = randomised_svd(left * (shift - shift @ q.T) * right, rank)
    scale = jnp.sqrt(s)[None, :]
    u, v = u * scale / left, v * scale / right.T
    unit = jnp.sqrt(jnp.square(u).sum() / (vocab * rank))
    table = jnp.pad(u / unit, ((0, 0), (1, 0)), constant_values=CONSTANT)
    size = jnp.sqrt(jnp.square(table).mean(1)).mean()
    log_q = (jnp.log(q) - (q * jnp.log(q)).sum()).T
    if cap := config.softcap:
        log_q = cap * jnp.arctanh(jnp.clip(log_q / cap, -0.8, 0.8))
    head = jnp.concatenate([log_q / CONSTANT, v * unit], 1) * size
    return table, head


def randomised_svd(matrix: Float[Array, "m n"], rank: int) -> tuple[Array, ...]:
    """(U [m, rank], S [rank], V [n, rank]) of the largest singular values, nearly.

    Ranks beyond the matrix's own sides are filled with zeros.
    """
    found = min(rank, *matrix.shape)
    width = min(found + OVERSAMPLED, *matrix.shape)
    seen = matrix @ jax.random.normal(jax.random.key(0), (matrix.shape[1], width))
    for _ in range(POWERS):
        basis, _ = jnp.linalg.qr(seen)
        seen = matrix @ (matrix.T @ basis)
    basis, _ = jnp.linalg.qr(seen)
    u, s, vt = jnp.linalg.svd(basis.T @ matrix, full_matrices=False)
    fill = lambda x: jnp.pad(x, ((0, 0), (0, rank - found)))
    s = jnp.pad(s[:found], (0, rank - found))
    return fill(basis @ u[:, :found]), s, fill(vt[:found].T)


def ngram_rows(
    config: ModelConfig, params: Params, counts: Square, text: Batch
) -> dict[int, Rows]:
    """The rows of the n-gram tables by order; see above."""
    predict = _predictor(config, params)
    mean = predict(params["embed"]["table"])
    step = STEP / _curvature(config, params, mean, counts)
    pairs = sums(config, params, text, 2, mean)
    rows = {2: step * pairs.missed / (pairs.seen + SHRINK)}
    told = pairs.expected + pairs.missed * pairs.seen / (pairs.seen + BACKED)
    told = told / jnp.maximum(pairs.seen, 1.0)
    place, row, said = fitted(pairs, predict, step)
    rows[2], told = rows[2].at[place].set(row), told.at[place].set(said)
    if config.memory_order > 2:
        longer = sums(config, params, text, 3, told)
        rows[3] = step * longer.missed / (longer.seen + SHRINK)
    return rows


class Sums(NamedTuple):
    """Of each row of a table, over the places that read it.

    missed:   sum of w(y) - E[w], what shorter n-grams don't know.
    expected: sum of E[w].
    inputs:   sum of the embeddings of the places' tokens.
    seen:     number of places.
    """

    missed: Rows
    expected: Rows
    inputs: Rows
    seen: Float[Array, "n 1"]


def sums(
    config: ModelConfig, params: Params, text: Batch, order: int, expected: Rows
) -> Sums:
    """Reads the whole text for the table of an order.

    Args:
      expected: E[w] by token (for order 2) or by row of the table before.
    """
    head, table = params["head"]["w"].T, params["embed"]["table"]
    zeros = jnp.zeros((config.memory_rows, config.width))

    def add(total: Sums, chunk: Batch) -> tuple[Sums, None]:
        places = lambda n: table_rows(config, chunk.tokens, n, chunk.segments)
        known = (chunk.targets != IGNORED).astype(zeros.dtype)[..., None]
        mean = expected[chunk.tokens if order == 2 else places(order - 1)]
        here = head[chunk.targets] - mean, mean, table[chunk.tokens]
        new = Sums(*(known * x for x in here), known)
        return jax.tree.map(lambda t, x: t.at[places(order)].add(x), total, new), None

    return jax.lax.scan(add, Sums(zeros, zeros, zeros, zeros[:, :1]), text)[0]


def fitted(
    pairs: Sums, predict: Callable[[Rows], Rows], step: Float[Array, ""]
) -> tuple[Int[Array, " k"], Rows, Rows]:
    """(places, rows, E[w] with them) of the `FITTED` rows that are read most often.

    Nesterov's steps to where the model's mean head vector is the smoothed one that was
    counted: a row whose places share one context then says what was counted there.
    """
    count, place = jax.lax.top_k(pairs.seen[:, 0], min(FITTED, len(pairs.seen)))
    seen = jnp.maximum(count, 1.0)[:, None]
    base, inputs = pairs.expected[place] / seen, pairs.inputs[place] / seen
    goal = base + pairs.missed[place] / (seen + SHRINK)

    def fit(one: tuple[Vector, Vector]) -> tuple[Vector, Vector]:
        goal, inputs = one

        def move(carry: Any, share: Float[Array, ""]) -> tuple[Any, None]:
            row, speed = carry
            error = goal - predict(inputs + row + MOMENTUM * speed)
            speed = MOMENTUM * speed + PUSH * share * step * error
            return (row + speed, speed), None

        zeros = jnp.zeros_like(goal)
        shares = 1 - jnp.arange(MOVES) / (MOVES + 1)
        (row, _), _ = jax.lax.scan(move, (zeros, zeros), shares)
        return row, predict(inputs + row)

    rows, said = jax.lax.map(fit, (goal, inputs), batch_size=AT_ONCE)
    return place, jnp.where(count[:, None] > 0, rows, 0.0), said


def _predictor(config: ModelConfig, params: Params) -> Callable[[Any], Any]:
    """From inputs of the final norm [..., D] to E[w], the head's mean vector there."""
    head, norm = params["head"]["w"].T, {"params": params["final_norm"]}
    layer = Norm(config.norm, config.bias)

    def predict(x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        z = capped(layer.apply(norm, x) @ head.T, config.softcap)
        return jax.nn.softmax(z) @ head

    return predict


def _curvature(
    config: ModelConfig, params: Params, mean: Matrix, counts: Square
) -> Float[Array, ""]:
    """Variance of w under the bigrams as counted, per coordinate."""
    lengths = jnp.square(params["head"]["w"]).sum(0)
    spread = counts.sum(0) @ lengths - counts.sum(1) @ jnp.square(mean).sum(1)
    return spread / counts.sum() / config.width
