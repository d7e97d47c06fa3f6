"""Hard examples that nobody wrote: the fourth stage of the curriculum.

Two makers, both of fixed shapes and pure, so they may be compiled:

* `continuations`: the model is sampled from where it was least sure, so rows lie at the
  edge of what it knows (and their targets are its own guesses, not facts).
* `recombinations`: the beginning of one row with the end of another, joined where a
  sentence ends: real text, but a context that nobody has seen.

`judge` accepts what the model finds neither certain nor implausible. Rows have the id
-2, so that no later part takes them for rows of the corpus. `logits(params, tokens
[B, L]) -> [B, L, V]` is the model; a row costs one forward to judge, and a continuation
one more per sampled token.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from uets_jax.errors import UserError
from uets_jax.types import IGNORED, Batch, Metrics, Params

SYNTHETIC = -2  # the id of a made-up row

Logits = Callable[[Params, Int[Array, "b l"]], Float[Array, "b l v"]]
Number = int | float | Float[Array, ""]


class Bands(NamedTuple):
    """What is accepted: means over a row's targets, in nats; may be traced.

    loss:    (low, high): above `high` a row is implausible, below `low` it is known.
    entropy: (low, high): how unsure of the next token the model has to be.
    """

    loss: tuple[Number, Number]
    entropy: tuple[Number, Number]


class Synthesised(NamedTuple):
    """Rows [B, L] and which of them to train on; the others have no targets."""

    batch: Batch
    accepted: Bool[Array, " b"]
    metrics: Metrics


def continuations(
    logits: Logits,
    params: Params,
    batch: Batch,
    uncertainty: Float[Array, "b l"],
    key: Key[Array, ""],
    tokens: int,
    temperature: Number = 1.0,
    eot: int | None = None,
) -> Batch:
    """Rows whose last `tokens` tokens are sampled where the model was least sure.

    Of each row the place with the greatest uncertainty is looked up among the last
    `tokens` places that have a target. The text up to there, as much as has room, is
    the prefix; the text before it is left away. All tokens are targets, the prefix's
    own, too.

    Args:
      uncertainty: of the prediction at each place, such as `Stats.entropy`.
      temperature: of the sampling, above 0.
      eot: the token that starts a document, if the model may begin a new one.

    Raises:
      UserError: unless 1 <= tokens < L.
    """
    length = batch.tokens.shape[1]
    if not 1 <= tokens < length:
        raise UserError(f"synthesis: tokens must be from 1 to {length - 1}: {tokens}")
    kept = length + 1 - tokens
    place = jnp.arange(length)[None, :]
    allowed = (place >= kept - 1) & (batch.targets != IGNORED)
    worst = jnp.argmax(jnp.where(allowed, uncertainty, -jnp.inf), axis=1)
    first = jnp.maximum(worst - (kept - 1), 0)
    text, known, parts = (_window(x, first, kept) for x in _whole(batch))
    sampled = _sample(logits, params, text, key, tokens, temperature)
    new = jnp.zeros_like(sampled) if eot is None else jnp.cumsum(sampled == eot, 1)
    return _as_batch(
        jnp.concatenate([text, sampled], 1),
        jnp.concatenate([known, jnp.ones_like(sampled, bool)], 1),
        jnp.concatenate([parts, parts[:, -1:] + new], 1),
    )


def recombinations(
    batch: Batch, key: Key[Array, ""], ends: Bool[Array, " v"] | None = None
) -> Batch:
    """Every row up to its middle, then another row from its middle on.

    The middle is just behind the token nearest to half of the row that ends a sentence
    (`ends` by token id), or half of the row. What is left over at the end of a row is
    padding without targets. No row is joined with itself where there are two.
    """
    rows, length = batch.tokens.shape
    other = _strangers(key, rows)
    middle = _middles(batch.tokens, ends)
    place = jnp.arange(length + 1)[None, :]
    cut, begin = middle[:, None], middle[other][:, None]
    own, source = place < cut, place - cut + begin
    at = jnp.minimum(source, length)
    pick = lambda x: jnp.where(own, x, jnp.take_along_axis(x[other], at, axis=1))
    text, known, parts = _whole(batch)
    before = jnp.take_along_axis(parts[other], begin - 1, axis=1)
    shift = jnp.take_along_axis(parts, cut - 1, axis=1) - before
    parts = pick(parts) + jnp.where(own, 0, shift)
    return _as_batch(pick(text), pick(known) & (own | (source <= length)), parts)


def judge(logits: Logits, params: Params, batch: Batch, bands: Bands) -> Synthesised:
    """Accepts the rows whose mean loss and mean entropy lie in the bands.

    Metrics: `synthetic_accepted` (share of the rows), `synthetic_loss` and
    `synthetic_entropy` (means over all rows, in nats).
    """
    known = batch.targets != IGNORED
    log_p = jax.nn.log_softmax(logits(params, batch.tokens).astype(jnp.float32))
    target = jnp.where(known, batch.targets, 0)[:, :, None]
    losses = -jnp.take_along_axis(log_p, target, axis=2)[:, :, 0]
    entropies = -(jnp.exp(log_p) * log_p).sum(2)
    number = jnp.maximum(known.sum(1), 1)
    loss, entropy = (
        jnp.where(known, x, 0.0).sum(1) / number for x in (losses, entropies)
    )
    inside = lambda x, band: (band[0] <= x) & (x <= band[1])
    accepted = inside(loss, bands.loss) & inside(entropy, bands.entropy)
    accepted &= known.any(1)
    targets = jnp.where(accepted[:, None], batch.targets, IGNORED)
    metrics = {
        "synthetic_accepted": accepted.mean(),
        "synthetic_loss": loss.mean(),
        "synthetic_entropy": entropy.mean(),
    }
    return Synthesised(batch._replace(targets=targets), accepted, metrics)


def _sample(
    logits: Logits,
    params: Params,
    prefix: Int[Array, "b k"],
    key: Key[Array, ""],
    tokens: int,
    temperature: Number,
) -> Int[Array, "b t"]:
    """What the model says after prefixes of one length."""
    rows, kept = prefix.shape
    window = jnp.concatenate([prefix, jnp.zeros((rows, tokens - 1), jnp.int32)], 1)

    def step(window: Any, x: Any) -> tuple[Any, Any]:
        at, key = x
        last = logits(params, window)[:, at].astype(jnp.float32)
        new = jax.random.categorical(key, last / temperature).astype(jnp.int32)
        return window.at[:, at + 1].set(new, mode="drop"), new

    places = jnp.arange(kept - 1, kept - 1 + tokens)
    _, out = jax.lax.scan(step, window, (places, jax.random.split(key, tokens)))
    return out.T


def _middles(
    tokens: Int[Array, "b l"], ends: Bool[Array, " v"] | None
) -> Int[Array, " b"]:
    """Where the second half of each row begins, from 1 to L - 1."""
    rows, length = tokens.shape
    if ends is None:
        return jnp.full(rows, length // 2)
    place = jnp.arange(1, length)[None, :]
    away = jnp.abs(place - length // 2)
    far = jnp.where(ends[tokens[:, :-1]], away, length + away)
    return 1 + jnp.argmin(far, axis=1)


def _strangers(key: Key[Array, ""], rows: int) -> Int[Array, " b"]:
    """Another row for each, all different: one cycle through the rows at random."""
    cycle = jax.random.permutation(key, rows)
    return jnp.zeros(rows, jnp.int32).at[cycle].set(jnp.roll(cycle, 1))


def _whole(batch: Batch) -> tuple[Any, Any, Any]:
    """[B, L + 1]: inputs and last target, which of them are targets, segments."""
    known = jnp.pad(batch.targets != IGNORED, ((0, 0), (1, 0)), constant_values=True)
    last = jnp.maximum(batch.targets[:, -1:], 0)
    text = jnp.concatenate([batch.tokens, last], 1)
    return text, known, jnp.pad(batch.segments, ((0, 0), (0, 1)), mode="edge")


def _window(
    x: Shaped[Array, "b m"], first: Int[Array, " b"], size: int
) -> Shaped[Array, "b k"]:
    one = lambda row, at: jax.lax.dynamic_slice(row, (at,), (size,))
    return jax.vmap(one)(x, first)


def _as_batch(
    text: Int[Array, "b m"], known: Bool[Array, "b m"], segments: Int[Array, "b m"]
) -> Batch:
    """Rows of L + 1 tokens as inputs and targets."""
    targets = jnp.where(known, text, IGNORED)[:, 1:]
    ids = jnp.full(len(text), SYNTHETIC, jnp.int32)
    segments = segments - segments[:, :1]
    whole = lambda x: x.astype(jnp.int32)
    return Batch(whole(text[:, :-1]), whole(targets), ids, whole(segments[:, :-1]))
