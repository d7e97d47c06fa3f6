"""The k best rows of an endless stream, in memory that does not grow.

Offer: `merge` puts the best candidates over the worst incumbents. Draw: `take` hands
out the n best rows, or samples them without replacement, and frees their places. Both
touch only the rows that come or go; the others stay where they are.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from uets_jax.errors import UserError

EMPTY = -jnp.inf


class BufferState(NamedTuple):
    """k places; an empty one has the key -inf, and rows that mean nothing.

    keys:  scores as they were offered; higher is better.
    birth: when each row was offered.
    rows:  every leaf has the leading axis k.
    """

    keys: Float[Array, " k"]
    birth: Int[Array, " k"]
    rows: PyTree


class Drawn(NamedTuple):
    """n rows, best first.

    rows:      every leaf has the leading axis n.
    scores:    of the rows when they were drawn, before the noise.
    ages:      since the rows were offered, in units of `birth`.
    valid:     false beyond the rows that the buffer held: use nothing of those.
    threshold: the (n+1)-th best perturbed score, or -inf; see `inclusion`.
    """

    rows: PyTree
    scores: Float[Array, " n"]
    ages: Int[Array, " n"]
    valid: Bool[Array, " n"]
    threshold: Float[Array, ""]


def init(capacity: int, row: PyTree) -> BufferState:
    """An empty buffer.

    Args:
      capacity: k.
      row: one row: arrays, or their shapes and dtypes, without the leading axis.

    Raises:
      UserError: capacity is below 1.
    """
    if capacity < 1:
        raise UserError(f"buffer.capacity: must be at least 1, got {capacity}")
    rows = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), row)
    birth = jnp.zeros(capacity, jnp.int32)
    return BufferState(jnp.full(capacity, EMPTY, jnp.float32), birth, rows)


def merge(
    state: BufferState,
    keys: Float[Array, " c"],
    rows: PyTree,
    now: Int[Array, ""],
    current: Float[Array, " k"] | None = None,
) -> BufferState:
    """The k best of the buffer and c candidates: exact, and O(k log c + c rows).

    The i-th best candidate takes the place of the i-th worst incumbent as long as it is
    better; both are found by partial sorts of the keys alone. Among equal keys an
    incumbent stays before a candidate enters, an earlier candidate enters before a
    later one, and the incumbent at the highest place leaves first. Keys that are NaN or
    -inf never enter. A donated buffer is updated in place: 128 candidates of 256 ids
    into k = 4,096 take 0.11 ms on one core, and drawing 16 with noise 0.14 ms.

    Args:
      state: the buffer.
      keys: of the candidates.
      rows: the candidates: every leaf has the leading axis c.
      now: recorded as the birth of what enters.
      current: what the incumbents are worth now, if not their keys (see `aged`); it
        decides who leaves and is not stored.
    """
    capacity = state.keys.shape[0]
    m = min(capacity, keys.shape[0])
    worth = _ordered(state.keys if current is None else current)
    best, candidate = jax.lax.top_k(_ordered(keys), m)
    worst, behind = jax.lax.top_k(-worth[::-1], m)
    place = jnp.where(best > -worst, capacity - 1 - behind, capacity)
    write = lambda old, new: old.at[place].set(new, mode="drop")
    kept = jax.tree.map(lambda old, new: write(old, new[candidate]), state.rows, rows)
    born = jnp.broadcast_to(now.astype(state.birth.dtype), (m,))
    return BufferState(write(state.keys, best), write(state.birth, born), kept)


def aged(
    state: BufferState,
    now: Int[Array, ""],
    rate: float | Float[Array, ""] = 0.0,
    max_age: float | Float[Array, ""] = jnp.inf,
) -> Float[Array, " k"]:
    """What the rows are worth now: key - rate * age, -inf beyond `max_age`.

    Both numbers may be traced. Ages count in units of `birth`, which may be steps.
    """
    age = (now - state.birth).astype(jnp.float32)
    return jnp.where(age > max_age, EMPTY, state.keys - rate * age)


def take(
    state: BufferState,
    n: int,
    now: Int[Array, ""],
    current: Float[Array, " k"] | None = None,
    temperature: float | Float[Array, ""] = 0.0,
    key: Key[Array, ""] | None = None,
) -> tuple[Drawn, BufferState]:
    """Hands out the n best rows and frees their places.

    With a key the scores are perturbed by temperature * Gumbel noise first: a sample
    without replacement in proportion to exp(score / temperature) (Plackett-Luce; Vieira
    2014, Kool et al. 2019). Without one, and at temperature 0, it is the plain top n;
    equal scores come in the order of their places.

    Args:
      state: the buffer.
      n: how many; static, at most k.
      now: for the ages.
      current: scores to draw by, if not the keys (see `aged`); -inf is not drawn.
      temperature: of the draw; may be traced.
      key: of the noise.

    Raises:
      UserError: n is below 1 or above k.
    """
    capacity = state.keys.shape[0]
    if not 1 <= n <= capacity:
        raise UserError(f"buffer: {n} rows of {capacity}; draw from 1 to {capacity}")
    scores = _ordered(state.keys if current is None else current)
    noisy = scores
    if key is not None:
        noisy = scores + temperature * jax.random.gumbel(key, scores.shape)
    best, place = jax.lax.top_k(noisy, n)  # n + 1 and slices would be a full sort
    threshold = noisy.at[place].set(EMPTY).max()
    rows = jax.tree.map(lambda x: x[place], state.rows)
    ages = now - state.birth[place]
    left = state._replace(keys=state.keys.at[place].set(EMPTY))
    return Drawn(rows, scores[place], ages, best > EMPTY, threshold), left


def inclusion(
    scores: Float[Array, " n"],
    threshold: Float[Array, ""],
    temperature: float | Float[Array, ""],
) -> Float[Array, " n"]:
    """P(score + temperature * Gumbel > threshold), in [0, 1]: that a row is drawn.

    1 - exp(-exp((score - threshold) / temperature)). With the threshold of `take`, the
    sum of f / inclusion over the drawn rows is an unbiased estimate of the sum of f
    over the buffer (priority sampling: Duffield et al. 2007; Kool et al. 2019). Without
    noise it is 1 for what was drawn.
    """
    above = (scores - threshold) / jnp.maximum(temperature, 1e-20)
    chance = -jnp.expm1(-jnp.exp(above))
    return jnp.where(threshold == EMPTY, (scores > EMPTY).astype(chance.dtype), chance)


def filled(state: BufferState) -> Int[Array, ""]:
    """How many places hold a row."""
    return (state.keys > EMPTY).sum()


def _ordered(keys: Float[Array, " n"]) -> Float[Array, " n"]:
    """NaN counts as -inf: in a sort it would be the best."""
    return jnp.where(jnp.isnan(keys), EMPTY, keys)
