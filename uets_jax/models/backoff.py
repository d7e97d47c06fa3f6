"""An n-gram back-off model beside the network: what was counted is not learned again.

Interpolated, modified Kneser-Ney (Kneser & Ney 1995; Chen & Goodman 1999): the longest
n-grams have the counts of the text, each shorter one the number of different tokens
that stand before it, and

    p(y | context) = max(c(y) - D(c), 0) / C + rest * p(y | context less its first),

where `rest` is the share that the discounts D have set free. The network's logits are
added to log p, so that it learns what the counts don't know (Li et al. 2022,
arXiv:2210.14431). An n-gram of three tokens and more is found by a hash of its context:

    start [S + 1]  where the list of a bucket of contexts begins
    mark, token, share [N]  of each list, the most frequent first

Everything is float32, as parameters are: whole numbers below 2^24 are exact.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from uets_jax.config import ModelConfig
from uets_jax.models.memory import ngram_hash
from uets_jax.types import IGNORED, Batch

READ = {3: 128, 4: 64, 5: 32}  # tokens of a list that are read, by order
MARK = 8  # bits of a hash that a mark leaves away
LEAST = 1e-9  # of a probability

Places = Float[Array, " t"]
Tables = dict[str, dict[str, Array]]


class Backoff(nn.Module):
    """Token ids [B, L] to the log probabilities of what follows, [B, L, V].

    Before a start from counts has filled the tables all tokens are equally likely. Of a
    list that is longer than `READ` the rest counts as not seen.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "b l"], segments: Int[Array, "b l"]
    ) -> Float[Array, "b l v"]:
        c = self.config
        apart = segments if c.mask_documents else None
        p = jax.lax.stop_gradient(Pairs(c.vocab, name="order2")())[tokens]
        rows = jnp.arange(tokens.shape[0])[:, None, None]
        places = jnp.arange(tokens.shape[1])[None, :, None]
        for order in range(3, c.backoff_order + 1):
            lists = Lists(c.backoff_pairs, name=f"order{order}")()
            found, token, share = read(
                lists, ngram_hash(tokens, order - 1, apart), order
            )
            share = jnp.where(found, share, 0.0)
            p = p * (1 - share.sum(-1, keepdims=True))
            p = p.at[rows, places, token].add(share)
        return jnp.log(jnp.maximum(p, LEAST))


class Pairs(nn.Module):
    """p(next | token), smoothed, [V, V]."""

    vocab: int

    @nn.compact
    def __call__(self) -> Float[Array, "v v"]:
        even = nn.initializers.constant(1 / self.vocab)
        return self.param("chance", even, (self.vocab, self.vocab))


class Lists(nn.Module):
    """Lists of what followed each context, without derivative."""

    size: int

    @nn.compact
    def __call__(self) -> dict[str, Array]:
        zeros = nn.initializers.zeros
        sizes = {"start": self.size + 1, **dict.fromkeys(FIELDS, self.size)}
        make = lambda name: self.param(name, zeros, (sizes[name],))
        return {name: jax.lax.stop_gradient(make(name)) for name in sizes}


FIELDS = ("mark", "token", "share")


def read(
    lists: dict[str, Array], hashes: UInt32[Array, "*n"], order: int
) -> tuple[Bool[Array, "*n k"], Int[Array, "*n k"], Float[Array, "*n k"]]:
    """(whether it is of this context, token, share) of the list at each place."""
    start, size = lists["start"].astype(jnp.int32), len(lists["mark"])
    row = bucket_of(hashes, size)
    step = jnp.arange(READ[order]).reshape(*[1] * row.ndim, -1)
    at = start[row][..., None] + step
    inside = at < start[row + 1][..., None]
    mark, token, share = (lists[name][jnp.minimum(at, size - 1)] for name in FIELDS)
    found = inside & (mark == mark_of(hashes)[..., None])
    return found, token.astype(jnp.int32), share


def bucket_of(hashes: UInt32[Array, "*n"], size: int) -> Int[Array, "*n"]:
    """Of a context."""
    return (hashes % jnp.uint32(size)).astype(jnp.int32)


def mark_of(hashes: UInt32[Array, "*n"]) -> Float[Array, "*n"]:
    """By which a context knows its own entries among those of its bucket."""
    return (hashes >> MARK).astype(jnp.float32)


def backoff_tables(config: ModelConfig, text: Batch) -> Tables:
    """The tables of `Backoff`, filled from a text.

    Args:
      config: of the model.
      text: windows [chunks, R, L]; places whose target is ignored are not counted.
    """
    tokens, segments = (
        x.reshape(-1, x.shape[-1]) for x in (text.tokens, text.segments)
    )
    apart = segments if config.mask_documents else None
    target = text.targets.ravel()
    counted = (target != IGNORED).astype(jnp.float32)
    tables: Tables = {}
    for order in range(config.backoff_order, 2, -1):
        hashes = ngram_hash(tokens, order - 1, apart).ravel()
        one = counts_of(hashes, target, counted)
        tables[f"order{order}"] = lists_of(one, config.backoff_pairs)
        counted = one.first
    chance = bigram_chances(tokens.ravel(), target, counted, config.vocab)
    return {"order2": {"chance": chance}, **tables}


class Counts(NamedTuple):
    """Of each n-gram, at one place per n-gram, else 0; sorted by context.

    hashes: of the context.
    token:  that follows.
    seen:   how often.
    share:  of the context's places, discounted.
    first:  in the order of the text: 1 at the first place of each n-gram.
    """

    hashes: UInt32[Array, " t"]
    token: Int[Array, " t"]
    seen: Places
    share: Places
    first: Places


def counts_of(
    hashes: UInt32[Array, " t"], target: Int[Array, " t"], weight: Places
) -> Counts:
    """Counts n-grams of one order.

    Args:
      hashes: of the context at each place.
      target: that follows.
      weight: 1 where the place counts, else 0.
    """
    size = len(target)
    place, token = jnp.arange(size), jnp.where(weight > 0, target, IGNORED)
    hashes, token, place = jax.lax.sort((hashes, token, place), num_keys=2)
    weight = weight[place]
    other = jnp.concatenate([jnp.ones(1, bool), hashes[1:] != hashes[:-1]])
    new = other | jnp.concatenate([jnp.ones(1, bool), token[1:] != token[:-1]])
    total = lambda starts, x: jax.ops.segment_sum(
        x, jnp.cumsum(starts) - 1, size, indices_are_sorted=True
    )[jnp.cumsum(starts) - 1]
    lead = new & (weight > 0)
    seen = jnp.where(lead, total(new, weight), 0.0)
    context = jnp.maximum(total(other, weight), 1.0)
    share = jnp.maximum(seen - discount(seen), 0.0) / context
    first = jnp.zeros(size).at[place].set(lead.astype(jnp.float32))
    return Counts(hashes, jnp.maximum(token, 0), seen, share, first)


def discount(seen: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """What is taken off each count; from how many n-grams were seen 1 to 4 times."""
    n1, n2, n3, n4 = (jnp.maximum((seen == k).sum(), 1.0) for k in (1, 2, 3, 4))
    y = n1 / (n1 + 2 * n2)
    one = jnp.clip(1 - 2 * y * n2 / n1, 0.1, 0.95)
    two = jnp.clip(2 - 3 * y * n3 / n2, 0.1, 1.95)
    more = jnp.clip(3 - 4 * y * n4 / n3, 0.1, 2.95)
    known = jnp.where(seen == 1, one, jnp.where(seen == 2, two, more))
    return jnp.where(seen > 0, known, 0.0)


def lists_of(counts: Counts, size: int) -> dict[str, Array]:
    """The lists of an order; where there are more n-grams, the rarest go."""
    most = jnp.arange(64.0)
    kept_at = jnp.stack([(counts.seen > k).sum() for k in most])
    bar = jnp.argmax(kept_at <= size).astype(jnp.float32)
    kept = counts.seen > bar
    bucket = jnp.where(kept, bucket_of(counts.hashes, size), size)
    share = jnp.where(kept, counts.share, 0.0)
    fields = (mark_of(counts.hashes), counts.token.astype(jnp.float32), share)
    bucket, _, *fields = jax.lax.sort((bucket, -share, *fields), num_keys=2)
    fit = lambda x, fill: jnp.pad(
        x[:size], (0, max(0, size - len(x))), constant_values=fill
    )
    start = jnp.searchsorted(fit(bucket, size), jnp.arange(size + 1))
    named = zip(FIELDS, (fit(x, 0) for x in fields), strict=True)
    return {"start": start.astype(jnp.float32), **dict(named)}


def bigram_chances(
    tokens: Int[Array, " t"], target: Int[Array, " t"], weight: Places, vocab: int
) -> Float[Array, "v v"]:
    """p(next | token) [V, V]: of two tokens and, for what they leave, of one."""
    target = jnp.maximum(target, 0)
    seen = jnp.zeros((vocab, vocab)).at[tokens, target].add(weight)
    alone = (seen > 0).sum(0).astype(jnp.float32)
    alone = (alone + 1 / vocab) / (alone.sum() + 1)
    share = jnp.maximum(seen - discount(seen), 0) / jnp.maximum(
        seen.sum(1, keepdims=True), 1
    )
    return share + (1 - share.sum(1, keepdims=True)) * alone[None, :]
