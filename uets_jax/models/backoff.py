"""An n-gram back-off model beside the network: what was counted is not learned again.

Interpolated, modified Kneser-Ney (Kneser & Ney 1995; Chen & Goodman 1999): the longest
n-grams have the counts of the text, each shorter one the number of different tokens
that stand before it, and

    p(y | context) = max(c(y) - D(c), 0) / C + rest * p(y | context less its first),

where `rest` is the share that the discounts D have set free. The model's chances are
those of the network and of the counts, mixed by a gate that is learned (Neubig & Dyer
2016, arXiv:1606.00499): it sees the network's features and how much of each context was
known. The tables are not trained. An n-gram of three tokens and more is found by a hash
of its context:

    start [S + 1]  where the list of a bucket of contexts begins
    mark, token, share [S]  of each list, the most frequent first

Everything is float32, as parameters are: whole numbers below 2^24 are exact.
"""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from uets_jax.config import ModelConfig
from uets_jax.models.memory import ngram_hash
from uets_jax.types import IGNORED, Batch, Stats

READ = {3: 64, 4: 32, 5: 16}  # tokens of a list that are read, by order
PASSES = 32  # of counting over the n-grams of an order, the hash's operations included
LEAST = 1e-9  # of a probability
MIXED = 0x9E3779B1  # odd: times it, hashes come in another order

Losses = Float[Array, "b l"]
Tables = dict[str, dict[str, np.ndarray]]


class Counted(NamedTuple):
    """p(v) at each place: rest * chance[token, v], and each share where entry is v.

    chance: smoothed bigrams.
    tokens: the place's own.
    entry, share: what followed its longer contexts.
    rest:   what these leave.
    known:  share of each longer context's chances that was counted for itself.
    """

    chance: Float[Array, "v v"]
    tokens: Int[Array, "b l"]
    entry: Int[Array, "b l k"]
    share: Float[Array, "b l k"]
    rest: Float[Array, "b l"]
    known: Float[Array, "b l orders"]

    def at(self, targets: Int[Array, "b l"]) -> Float[Array, "b l"]:
        """p of each target; of an ignored one, that of token 0."""
        y = jnp.maximum(targets, 0)
        own = jnp.where(self.entry == y[..., None], self.share, 0.0).sum(-1)
        return self.rest * self.chance[self.tokens, y] + own

    def all(self) -> Float[Array, "b l v"]:
        """p of every token."""
        p = self.rest[..., None] * self.chance[self.tokens]
        rows, places, _ = jnp.ogrid[: p.shape[0], : p.shape[1], :1]
        return p.at[rows, places, self.entry].add(self.share)


class Backoff(nn.Module):
    """Token ids [B, L] to what was `Counted` of their contexts.

    Before a start from counts has filled the tables all tokens are equally likely. Of a
    list that is longer than `READ` the rest counts as not seen.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "b l"], segments: Int[Array, "b l"]
    ) -> Counted:
        c = self.config
        apart = segments if c.mask_documents else None
        chance = jax.lax.stop_gradient(Pairs(c.vocab, name="order2")())
        rest, entries, shares, known = jnp.ones(tokens.shape), [], [], []
        for order in range(c.backoff_order, 2, -1):
            lists = Lists(c.backoff_pairs, name=f"order{order}")()
            hashes = ngram_hash(tokens, order - 1, apart)
            found, entry, share = read(lists, hashes, order)
            share = jnp.where(found, share, 0.0)
            entries.append(entry)
            shares.append(rest[..., None] * share)
            known.append(share.sum(-1))
            rest = rest * (1 - known[-1])
        join = lambda arrays: jnp.concatenate(arrays, -1)
        each = jnp.stack(known, -1)
        return Counted(chance, tokens, join(entries), join(shares), rest, each)


class Blend(nn.Module):
    """The logit of the network's share, [B, L]; 0, a half, before it has learned."""

    @nn.compact
    def __call__(
        self, features: Float[Array, "b l d"], known: Float[Array, "b l orders"]
    ) -> Float[Array, "b l"]:
        zeros = nn.initializers.zeros
        w = self.param("w", zeros, (features.shape[-1], 1))
        own = self.param("known", zeros, known.shape[-1:])
        bias = self.param("b", zeros, ())
        seen = jnp.einsum("bld,do->bl", features, w.astype(features.dtype))
        return seen.astype(jnp.float32) + jnp.einsum("blo,o->bl", known, own) + bias


def mixed_losses(
    losses: Losses,
    counted: Counted,
    gate: Float[Array, "b l"],
    targets: Int[Array, "b l"],
) -> Losses:
    """Cross entropy of the mixture, from the network's own; 0 where ignored."""
    said = jnp.log(jnp.maximum(counted.at(targets), LEAST))
    network, counts = jax.nn.log_sigmoid(gate), jax.nn.log_sigmoid(-gate)
    mixed = -jnp.logaddexp(network - losses, counts + said)
    return jnp.where(targets == IGNORED, 0.0, mixed)


def mixed_logits(
    logits: Float[Array, "b l v"], counted: Counted, gate: Float[Array, "b l"]
) -> Float[Array, "b l v"]:
    """Log probabilities of the mixture."""
    said = jnp.log(jnp.maximum(counted.all(), LEAST))
    gate = gate[..., None]
    own = jax.nn.log_sigmoid(gate) + jax.nn.log_softmax(logits)
    return jnp.logaddexp(own, jax.nn.log_sigmoid(-gate) + said)


def mixed_stats(stats: Stats, log_p: Float[Array, "b l v"]) -> Stats:
    """By-products of the mixture's log probabilities; readings without gradient."""
    log_p = jax.lax.stop_gradient(log_p)
    p = jnp.exp(log_p)
    return stats._replace(
        logsumexp=jax.nn.logsumexp(log_p, -1),
        entropy=-(p * log_p).sum(-1),
        collision=(p * p).sum(-1),
    )


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
    row, mark = bucket_of(hashes, size)
    step = jnp.arange(READ[order]).reshape(*[1] * row.ndim, -1)
    at = start[row][..., None] + step
    inside = at < start[row + 1][..., None]
    known, token, share = (lists[name][jnp.minimum(at, size - 1)] for name in FIELDS)
    found = inside & (known == mark[..., None].astype(known.dtype))
    return found, token.astype(jnp.int32), share


def bucket_of(hashes: Any, size: int) -> tuple[Any, Any]:
    """(bucket of a context, mark by which it knows its own among that bucket's).

    Both are exact as float32: of 32 bits of the hash no more than 24 are the mark.
    """
    bits = 33 - size.bit_length()
    bucket, mark = hashes >> bits, hashes & ((1 << bits) - 1)
    return bucket.astype("int32"), mark.astype("int32")


def backoff_tables(config: ModelConfig, text: Batch) -> Tables:
    """The tables of `Backoff`, filled from a text; NumPy, since XLA sorts slowly.

    Args:
      config: of the model.
      text: windows [chunks, R, L]; places whose target is ignored are not counted.
    """
    rows = lambda x: np.asarray(x).reshape(-1, x.shape[-1])
    tokens, target = rows(text.tokens), rows(text.targets).ravel()
    apart = rows(text.segments) if config.mask_documents else None
    places = np.flatnonzero(target != IGNORED)
    tables: Tables = {}
    for order in range(config.backoff_order, 2, -1):
        hashes = np.asarray(_hashes(tokens, order - 1, apart)).ravel()[places]
        keys = hashes.astype(np.uint64) << 32 | target[places].astype(np.uint64)
        grams, first, seen = np.unique(keys, return_index=True, return_counts=True)
        tables[f"order{order}"] = lists_of(grams, seen, config.backoff_pairs)
        places = places[first]  # of a shorter one each continuation counts once
    pairs = tokens.ravel()[places], target[places]
    return {"order2": {"chance": bigram_chances(*pairs, config.vocab)}, **tables}


_hashes = jax.jit(ngram_hash, static_argnums=1)


def discount(seen: np.ndarray) -> np.ndarray:
    """What is taken off each count; from how many n-grams were seen 1 to 4 times."""
    n1, n2, n3, n4 = (max(np.count_nonzero(seen == k), 1) for k in (1, 2, 3, 4))
    y = n1 / (n1 + 2 * n2)
    one = np.clip(1 - 2 * y * n2 / n1, 0.1, 0.95)
    two = np.clip(2 - 3 * y * n3 / n2, 0.1, 1.95)
    more = np.clip(3 - 4 * y * n4 / n3, 0.1, 2.95)
    return np.array([0.0, one, two, more])[np.minimum(seen, 3)]


def lists_of(grams: np.ndarray, seen: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """The lists of an order; where there are more n-grams, the rarest go, of those
    that are as rare as each other whole contexts in the order of a hash.

    Args:
      grams: distinct and sorted, hash of the context << 32 | token.
      seen: how often.
      size: n-grams that are kept, and buckets.
    """
    hashes, token = (grams >> 32).astype(np.uint32), grams & 0xFFFFFFFF
    other = np.append(True, hashes[1:] != hashes[:-1])[: len(hashes)]
    begins = np.flatnonzero(other)
    total = np.repeat(np.add.reduceat(seen, begins), np.diff([*begins, len(seen)]))
    share = (seen - discount(seen)) / total
    kept = most_seen(seen, hashes * np.uint32(MIXED), size)
    bucket, mark = bucket_of(hashes, size)
    kept = kept[np.lexsort((-share[kept], bucket[kept]))]
    fill = lambda x: np.pad(x[kept].astype(np.float32), (0, size - len(kept)))
    start = np.searchsorted(bucket[kept], np.arange(size + 1)).astype(np.float32)
    named = zip(FIELDS, map(fill, (mark, token, share)), strict=True)
    return {"start": start, **dict(named)}


def most_seen(seen: np.ndarray, order: np.ndarray, size: int) -> np.ndarray:
    """Places of the `size` largest counts, ascending; of equal ones the first by
    `order`.
    """
    bar = 0
    while np.count_nonzero(seen > bar) > size:
        bar += 1
    above, at = np.flatnonzero(seen > bar), np.flatnonzero(seen == bar)
    more = at[np.argsort(order[at], kind="stable")][: size - len(above)]
    return np.sort(np.concatenate([above, more]))


def bigram_chances(
    tokens: np.ndarray, target: np.ndarray, vocab: int
) -> Float[np.ndarray, "v v"]:
    """p(next | token) [V, V]: of two tokens and, for what they leave, of one."""
    pair = tokens.astype(np.int64) * vocab + target
    seen = np.bincount(pair, minlength=vocab * vocab).reshape(vocab, vocab)
    alone = (seen > 0).sum(0)
    alone = (alone + 1 / vocab) / (alone.sum() + 1)
    share = (seen - discount(seen)) / np.maximum(seen.sum(1, keepdims=True), 1)
    chance = share + (1 - share.sum(1, keepdims=True)) * alone
    return chance.astype(np.float32)


def operations(config: ModelConfig, tokens: int) -> int:
    """Arithmetic of `backoff_tables` with so many tokens, integer operations included,
    at most: four sorts by comparison and a few passes for each order, a search for
    the beginning of every list, and the table of bigrams.
    """
    log = lambda n: math.ceil(math.log2(max(n, 2)))
    each = tokens * (4 * log(tokens) + PASSES)
    each += (config.backoff_pairs + 1) * log(config.backoff_pairs)
    bigrams = tokens * 3 + PASSES * config.vocab**2
    return max(0, config.backoff_order - 2) * each + bigrams
