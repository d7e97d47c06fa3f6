"""Starting parameters in closed form: what counts of the training text already know.

The first steps of training find what a count would have said: how often each token
follows each other one. Here embedding and head begin as the best low-rank model of the
bigrams, and the n-gram tables with what the tokens before tell beside that:

1. embedding, head: a truncated, randomised SVD (Halko et al. 2011, arXiv:0909.4061) of
   the pointwise mutual information of neighbours, weighted by the square roots of both
   frequencies (Levy & Goldberg 2014), the log unigram in a coordinate of its own; then
   `REFINED` full-batch steps of Adam on the cross entropy of the bigrams, through the
   model's final norm and soft-cap.
2. tables: with w(y) the head's vector of a token and E[w | x] its mean under the bigram
   model, the row of a bucket b gets one step along the mean gradient of its tokens,

       row(b) = STEP / h * sum_b (w(y) - E[w | x]) / (n_b + SHRINK),

   h being the mean curvature, the variance of w under the model per coordinate. Longer
   n-grams start from what the shorter ones already say (Witten-Bell-like back-off with
   `BACKED` pseudo-counts).

Where blocks begin as the identity (`zero_init`) the untrained model is exactly that
n-gram model; elsewhere nearly so. All of it is JAX, so the ledger counts it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from uets_jax.config import ModelConfig
from uets_jax.models.head import capped
from uets_jax.models.layers import Norm
from uets_jax.models.memory import NAMES, table_rows
from uets_jax.types import IGNORED, Batch, Params

LARGEST = 8192  # vocabulary: its square is held in memory
REFINED, RATE = 20, 0.1
STEP, SHRINK, BACKED = 0.14, 5.0, 2.0
OVERSAMPLED, POWERS = 8, 2  # of the randomised SVD
CONSTANT = 2.0  # the coordinate that carries the log unigram, in units of the others

Square = Float[Array, "v v"]
Matrix = Float[Array, "v d"]


def closed_form(config: ModelConfig, params: Params, text: Batch) -> Params:
    """`params` with embedding, head and n-gram tables read off a text.

    Args:
      config: of the model: an untied head, a vocabulary of at most `LARGEST`.
      params: fresh ones; all that is not named here stays.
      text: windows [chunks, R, L]; one chunk is in work at a time.
    """
    counts = bigram_counts(text, config.vocab)
    table, head = bigram_model(config, params["final_norm"], counts)
    new = {**params, "embed": {"table": table}, "head": {"w": head.T}}
    if config.memory_rows:
        rows = ngram_rows(config, new, counts, text)
        new["memory"] = {NAMES[order]: {"table": r} for order, r in rows.items()}
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
    read = lambda table: layer.apply({"params": norm}, table)
    share = counts / counts.sum()

    def loss(pair: tuple[Matrix, ...]) -> Float[Array, ""]:
        table, head = pair
        z = capped(read(table) @ head.T, config.softcap)
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
) -> dict[int, Float[Array, "n d"]]:
    """The rows of the n-gram tables by order; see above."""
    head = params["head"]["w"].T
    layer = Norm(config.norm, config.bias)
    features = layer.apply({"params": params["final_norm"]}, params["embed"]["table"])
    p = jax.nn.softmax(capped(features @ head.T, config.softcap))
    mean = p @ head
    spread = p @ jnp.square(head).sum(1) - jnp.square(mean).sum(1)
    curvature = (counts.sum(1) @ spread) / counts.sum() / config.width
    told: dict[int, Float[Array, "n d"]] = {}
    rows = {}
    for order in range(2, config.memory_order + 1):
        total, seen = _surprise(config, head, mean, told, text, order)
        told[order] = total / (seen + BACKED)[:, None]
        rows[order] = STEP / curvature * total / (seen + SHRINK)[:, None]
    return rows


def _surprise(
    config: ModelConfig,
    head: Matrix,
    mean: Matrix,
    told: dict[int, Float[Array, "n d"]],
    text: Batch,
    order: int,
) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
    """Of each bucket: the sum of w(y) less what is expected, and its number of y."""

    def add(carry: Any, chunk: Batch) -> tuple[Any, None]:
        total, seen = carry
        places = lambda n: table_rows(config, chunk.tokens, n, chunk.segments)
        known = (chunk.targets != IGNORED).astype(seen.dtype)
        expected = mean[chunk.tokens] + sum(t[places(n)] for n, t in told.items())
        residual = (head[chunk.targets] - expected) * known[..., None]
        here = places(order)
        return (total.at[here].add(residual), seen.at[here].add(known)), None

    rows: Int[Array, ""] | int = config.memory_rows
    start = (jnp.zeros((rows, config.width)), jnp.zeros(rows))
    return jax.lax.scan(add, start, text)[0]
