"""Exact and near de-duplication of a stream of texts in bounded memory."""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Shaped, UInt32

from uets_jax.component import Component
from uets_jax.selection import minhash
from uets_jax.selection.documents import TEXTS, groups
from uets_jax.selection.hashing import bucket
from uets_jax.selection.minhash import DedupConfig

DEFAULT = DedupConfig()


class DupState(NamedTuple):
    """The keys that were seen: table 0 of whole texts, the others of bands.

    A key lies in the slot that its first bits name; zeros are an empty slot. Size:
    8 (1 + bands) slots bytes, whatever the stream: 14 MB with the default config.
    """

    table: UInt32[Array, "k slots 2"]


class Matches(NamedTuple):
    """Which rows equal an earlier one, and which others share a band with one."""

    exact: Bool[Array, " n"]
    near: Bool[Array, " n"]


class Kept(NamedTuple):
    """Which texts are no copies of earlier ones; counts of those that are."""

    keep: Bool[np.ndarray, " n"]
    exact: int
    near: int


def init(config: DedupConfig) -> DupState:
    """Nothing seen."""
    return DupState(jnp.zeros((1 + config.bands, config.slots, 2), jnp.uint32))


def query_update(
    state: DupState,
    keys: UInt32[Array, "n k 2"],
    valid: Bool[Array, " n"] | None = None,
) -> tuple[Matches, DupState]:
    """Which rows match an earlier row, of this batch too; then remembers all of them.

    As if the rows came one by one: of a group within the batch the first is kept and
    the others match. Copies are remembered too, so that a copy of a copy is found, and
    text that keeps coming back is not forgotten. One difference to one by one: what a
    row overwrites can still be found by the rest of its batch. Work: n^2 comparisons
    per key.

    Args:
      state: what was seen before.
      keys: of `signatures`.
      valid: rows that are neither looked up nor remembered are false.
    """
    n, tables, _ = keys.shape
    valid = jnp.ones(n, bool) if valid is None else valid
    table, slots = jnp.arange(tables)[None], state.table.shape[1]
    slot = bucket(keys[..., 0], slots)
    known = (state.table[table, slot] == keys).all(-1)

    row = jnp.arange(n)
    earlier = (row[None] < row[:, None]) & valid[None]
    later = (row[None] > row[:, None]) & valid[None]
    repeated = jax.vmap(_any_equal, (1, None), 1)(keys, earlier)
    overwritten = jax.vmap(_any_equal, (1, None), 1)(slot[..., None], later)

    place = jnp.where(valid[:, None] & ~overwritten, slot, slots)
    new = state.table.at[table, place].set(keys, mode="drop")
    match = (known | repeated) & valid[:, None]
    exact = match[:, 0]
    return Matches(exact, match[:, 1:].any(1) & ~exact), DupState(new)


def deduplicator(config: DedupConfig) -> Component:
    """A component: apply(state, tokens [n, l], lengths [n]) -> (matches, state).

    256 rows of 128 tokens take 4 ms on one core, with the state donated.
    """

    def apply(
        state: DupState, tokens: Int[Array, "n l"], lengths: Int[Array, " n"]
    ) -> tuple[Matches, DupState]:
        return query_update(state, minhash.signatures(tokens, lengths, config))

    return Component(init=lambda params: init(config), apply=apply)


def deduplicate(documents: Iterable[np.ndarray], config: DedupConfig = DEFAULT) -> Kept:
    """Drops every text that matches an earlier one; the first of a group stays.

    What should not count as a difference (case, white space) must be normalised
    before the texts become tokens.

    9.95 M tokens in 7,891 texts take 1.3 s on one core (3 to 7 s on a busy machine).

    Args:
      documents: ids of each text, of any length; read once.
      config: what counts as a copy.
    """
    state, step = init(config), jax.jit(query_update, donate_argnums=0)
    found = []
    for group in groups(documents):
        n = len(group.lengths)
        keys = minhash.document_signatures(group, config)
        keys = np.pad(keys, ((0, TEXTS - n), (0, 0), (0, 0)))
        matches, state = step(state, keys, np.arange(TEXTS) < n)
        found.append(np.stack(matches, 1)[:n])
    exact, near = np.concatenate([np.zeros((0, 2), bool), *found]).T
    return Kept(~(exact | near), int(exact.sum()), int(near.sum()))


def operations(tokens: int, texts: int, config: DedupConfig) -> int:
    """Integer operations of `deduplicate`: signatures, then comparisons in groups."""
    pairs = texts * TEXTS * (1 + config.bands)
    return minhash.operations(tokens, config) + 6 * pairs


def _any_equal(
    words: Shaped[Array, "n w"], among: Bool[Array, "n n"]
) -> Bool[Array, " n"]:
    """Whether row i equals a row j for which `among[i, j]`."""
    equal = among
    for column in words.T:
        equal &= column[:, None] == column[None]
    return equal.any(1)
