"""Sources of tokens: texts that the caller has, and languages that a key makes up."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from uets_jax.errors import UserError
from uets_jax.meta.family import distinct

_HELD = 16  # rows that are kept back
_LONGEST = 1 << 18  # tokens that are used of a text

Tokens = Int[Array, "b t"]


class Source(NamedTuple):
    """vocab: ids below it. instance: key -> which language or part of a text.
    draw: (instance, key, n, t, rows) -> n rows of t tokens, `rows` of them distinct.
    held: (instance, t) -> 16 rows that `draw` never gives.
    """

    name: str
    vocab: int
    instance: Callable[[Key[Array, ""]], Any]
    draw: Callable[[Any, Key[Array, ""], int, int, Int[Array, ""]], Tokens]
    held: Callable[[Any, int], Tokens]


class Part(NamedTuple):
    """text: number of the text. first: token at which the part begins."""

    text: Int[Array, ""]
    first: Int[Array, ""]


def texts(named: Mapping[str, np.ndarray], vocab: int = 0, share: int = 4) -> Source:
    """Parts of texts: 1 / `share` of one of them, its last tenth kept back.

    Args:
      named: token ids [n] by name. All are cut to the length of the shortest, and to
        2^18 tokens.
      vocab: above all ids; 0: the next multiple of 16.
      share: parts that a text would be cut into; instances begin anywhere.

    Raises:
      UserError: no text, one that is too short, or an id that is out of range.
    """
    _check(named, vocab, share)
    longest = min(_LONGEST, *(len(x) for x in named.values()))
    cut = np.stack([np.asarray(x[:longest], np.int32) for x in named.values()])
    vocab = vocab or -(-(int(cut.max()) + 1) // 16) * 16
    own = longest // share
    train = own - own // 10
    ids = jnp.asarray(cut)

    def instance(key: Key[Array, ""]) -> Part:
        which, where = jax.random.split(key)
        first = jax.random.randint(where, (), 0, longest - own + 1)
        return Part(jax.random.randint(which, (), 0, len(cut)), first)

    def rows_at(part: Part, places: Int[Array, " b"], t: int) -> Tokens:
        at = part.first + places[:, None] + jnp.arange(t)[None, :]
        return ids[part.text, at]

    def draw(part: Part, key: Key[Array, ""], n: int, t: int, rows: Array) -> Tokens:
        places = jax.random.randint(key, (n,), 0, train - t + 1)
        return rows_at(part, distinct(rows, n, places), t)

    def held(part: Part, t: int) -> Tokens:
        last = own - train - t
        return rows_at(part, train + jnp.arange(_HELD) * last // (_HELD - 1), t)

    return Source("+".join(named), vocab, instance, draw, held)


def _check(named: Mapping[str, np.ndarray], vocab: int, share: int) -> None:
    if not named:
        raise UserError("texts: give at least one text")
    for name, ids in named.items():
        if len(ids) < 1280 * share:
            raise UserError(
                f"texts: {name} has {len(ids)} tokens: needs {1280 * share}"
            )
        low, high = int(np.min(ids)), int(np.max(ids))
        if low < 0 or (vocab and high >= vocab):
            raise UserError(f"texts: {name}: ids {low}..{high} for a vocab of {vocab}")


class Chain(NamedTuple):
    """cumulative: P(next <= j | last i) [v, v]. key: of the rows that are held back."""

    cumulative: Float[Array, "v v"]
    key: Key[Array, ""]


def markov(vocab: int = 32) -> Source:
    """A Markov chain over tokens; its entropy differs from one instance to another."""

    def instance(key: Key[Array, ""]) -> Chain:
        heat, draw, own = jax.random.split(key, 3)
        sharp = jax.random.uniform(heat, (), minval=1.0, maxval=4.0)
        logits = sharp * jax.random.normal(draw, (vocab, vocab))
        return Chain(jnp.cumsum(jax.nn.softmax(logits), 1), own)

    def draw(own: Chain, key: Key[Array, ""], n: int, t: int, rows: Array) -> Tokens:
        chance = jax.random.uniform(key, (n, t))[distinct(rows, n, jnp.arange(n))]
        return _walk(own.cumulative, chance)

    return _generated(f"markov-{vocab}", vocab, instance, draw)


class Words(NamedTuple):
    """spelling: letters of each word [w, 4], the last a space. cumulative: over words
    [w, w], a few followers each. key: of the rows that are held back.
    """

    spelling: Int[Array, "w 4"]
    cumulative: Float[Array, "w w"]
    key: Key[Array, ""]


def words(vocab: int = 32, count: int = 48) -> Source:
    """Words of three letters, a space after each, in the order of a grammar."""

    def instance(key: Key[Array, ""]) -> Words:
        spell, follow, own = jax.random.split(key, 3)
        letters = jax.random.randint(spell, (count, 3), 1, vocab)
        spelling = jnp.concatenate([letters, jnp.zeros((count, 1), jnp.int32)], 1)
        logits = 6.0 * jax.random.normal(follow, (count, count))
        return Words(spelling, jnp.cumsum(jax.nn.softmax(logits), 1), own)

    def draw(own: Words, key: Key[Array, ""], n: int, t: int, rows: Array) -> Tokens:
        walk, cut = jax.random.split(key)
        chance = jax.random.uniform(walk, (n, t // 4 + 2))
        text = own.spelling[_walk(own.cumulative, chance)].reshape(n, -1)
        first = jax.random.randint(cut, (n,), 0, 4)
        text = jnp.take_along_axis(text, first[:, None] + jnp.arange(t)[None, :], 1)
        return text[distinct(rows, n, jnp.arange(n))]

    return _generated(f"words-{vocab}", vocab, instance, draw)


class Echo(NamedTuple):
    """code: a permutation of ids. key: of the rows that are held back."""

    code: Int[Array, " v"]
    key: Key[Array, ""]


def echo(vocab: int = 32, period: int = 5) -> Source:
    """Random ids, low ones more often; each is echoed in code `period` places later."""

    def instance(key: Key[Array, ""]) -> Echo:
        draw, own = jax.random.split(key)
        return Echo(jnp.argsort(jax.random.uniform(draw, (vocab,))), own)

    def draw(own: Echo, key: Key[Array, ""], n: int, t: int, rows: Array) -> Tokens:
        skewed = vocab * jnp.square(jax.random.uniform(key, (n, period)))
        block = jnp.minimum(skewed, vocab - 1).astype(jnp.int32)
        blocks = [block]
        for _ in range(t // period):
            blocks.append(own.code[blocks[-1]])
        return jnp.concatenate(blocks, 1)[distinct(rows, n, jnp.arange(n)), :t]

    return _generated(f"echo-{vocab}", vocab, instance, draw)


def _generated(name: str, vocab: int, instance: Any, draw: Any) -> Source:
    everything = jnp.asarray(_HELD)
    held = lambda own, t: draw(
        own, jax.random.fold_in(own.key, 0), _HELD, t, everything
    )
    return Source(name, vocab, instance, draw, held)


def _walk(
    cumulative: Float[Array, "v v"], chance: Float[Array, "n t"]
) -> Int[Array, "n t"]:
    """States [n, t] of a chain, by the inverse of its distribution function."""
    last = cumulative.shape[0] - 1

    def step(state: Array, u: Array) -> tuple[Array, Array]:
        passed = (cumulative[state] < u[:, None]).sum(1)
        state = jnp.minimum(passed, last).astype(jnp.int32)
        return state, state

    first = jnp.minimum(chance[:, 0] * (last + 1), last).astype(jnp.int32)
    _, rest = jax.lax.scan(step, first, chance[:, 1:].T)
    return jnp.concatenate([first[:, None], rest.T], 1)
