"""De-duplication: order, memory, copies of both kinds, and the compiled component."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.selection.dedup import (
    DupState,
    deduplicate,
    deduplicator,
    init,
    operations,
    query_update,
)
from uets_jax.selection.minhash import DedupConfig

update = jax.jit(query_update)
SMALL = DedupConfig(shingle=3, bands=8, rows=2, slots=256)


def texts(count: int, length: int = 60, seed: int = 0) -> np.ndarray:
    """Unrelated texts."""
    return np.random.default_rng(seed).integers(0, 900, (count, length))


def edit(ids: np.ndarray, rate: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    changed = rng.random(ids.shape) < rate
    return np.where(changed, rng.integers(0, 900, ids.shape), ids)


def keys(*rows: list[int]) -> jax.Array:
    """Keys of two tables, from one small number each."""
    return jnp.asarray([[[k << 24, k] for k in row] for row in rows], jnp.uint32)


def one_by_one(state: dict, rows: np.ndarray) -> list[bool]:
    """An oracle with unbounded memory and Python sets."""
    found = []
    for row in rows.tolist():
        marks = {(table, *key) for table, key in enumerate(row)}
        found.append(bool(marks & state.keys()))
        state.update(dict.fromkeys(marks))
    return found


def test_the_first_of_a_group_stays_within_a_batch_and_across():
    state = init(DedupConfig(bands=1, slots=256))
    found, state = update(state, keys([1, 1], [2, 2], [1, 9], [8, 2], [3, 3]))
    assert found.exact.tolist() == [False, False, True, False, False]
    assert found.near.tolist() == [False, False, False, True, False]
    found, state = update(state, keys([4, 4], [7, 9], [3, 5]))  # 9: of a copy
    assert found.exact.tolist() == [False, False, True]
    assert found.near.tolist() == [False, True, False]


def test_any_split_into_batches_gives_what_one_by_one_gives():
    rng = np.random.default_rng(0)
    stream = rng.integers(1, 40, (64, 3, 1)).astype(np.uint32)
    stream = np.concatenate([stream << 24, stream], -1)  # 40 keys, 256 slots: no clash
    expected = one_by_one({}, stream)
    assert 10 < sum(expected) < 60
    for size in (4, 64):
        state, found = init(DedupConfig(bands=2, slots=256)), []
        for start in range(0, 64, size):
            match, state = update(state, jnp.asarray(stream[start : start + size]))
            found += (match.exact | match.near).tolist()
        assert found == expected


def test_which_of_two_copies_stays_follows_their_order():
    a, b = texts(2)
    near = edit(a, 0.02, seed=3)
    assert deduplicate([a, b, near], SMALL).keep.tolist() == [True, True, False]
    assert deduplicate([near, b, a], SMALL).keep.tolist() == [True, True, False]
    assert deduplicate([b, near, a], SMALL).keep.tolist() == [True, True, False]


def test_a_full_table_forgets_the_oldest_and_never_grows():
    config = DedupConfig(shingle=3, bands=2, rows=1, slots=4)
    stream = texts(600, 12)
    kept = deduplicate([*stream, stream[0]], config)
    assert kept.keep.all()  # the three keys of the first were overwritten
    state = init(config)
    shapes = jax.tree.map(jnp.shape, state)
    _, state = update(state, jnp.ones((300, 3, 2), jnp.uint32))
    assert jax.tree.map(jnp.shape, state) == shapes == DupState((3, 4, 2))


def test_the_later_key_has_the_slot():
    state = init(DedupConfig(bands=1, slots=2))
    _, state = update(state, keys([1, 1], [2, 2]))  # all in slot 0
    found, state = update(state, keys([1, 3]))
    assert not found.exact.any()
    found, _ = update(state, keys([5, 3]))
    assert found.near.all()


def test_rows_that_do_not_count_are_neither_found_nor_remembered():
    state = init(DedupConfig(bands=1, slots=256))
    batch, valid = keys([1, 1], [1, 1], [2, 2]), jnp.asarray([False, True, False])
    found, state = update(state, batch, valid)
    assert not (found.exact | found.near).any()
    found, _ = update(state, keys([1, 1], [2, 2]))
    assert found.exact.tolist() == [True, False]


def test_exact_and_edited_copies_are_found_and_nothing_else():
    unique = texts(300, 200)
    copies = [*unique[:100], *edit(unique[100:200], 0.03, seed=1)]
    kept = deduplicate([*unique, *copies])
    assert kept.keep[:300].all()
    assert not kept.keep[300:400].any()
    assert kept.exact == 100
    assert kept.near >= 98
    assert kept.keep.sum() == 500 - kept.exact - kept.near


def test_texts_of_any_length_may_be_a_generator_of_lists():
    lengths = [0, 1, 3, 5000, 1, 0, 5000]
    kept = deduplicate([7] * n for n in lengths)
    assert kept.keep.tolist() == [True, True, True, True, False, False, False]
    assert kept.exact == 3
    assert deduplicate([]).keep.shape == (0,)


def test_the_component_keeps_its_state_and_agrees_with_the_host():
    part = deduplicator(SMALL)
    rows = np.concatenate([texts(20), edit(texts(20), 0.03, seed=2), texts(4)])
    lengths = jnp.full(len(rows), 60)
    state = part.init(None)
    plain = part.apply(state, jnp.asarray(rows), lengths)
    compiled = jax.jit(part.apply)(state, jnp.asarray(rows), lengths)
    chex.assert_trees_all_equal(plain, compiled)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, plain[1])
    kept = deduplicate(rows, SMALL)
    np.testing.assert_array_equal(kept.keep, ~(plain[0].exact | plain[0].near))


@pytest.mark.parametrize("tokens", [1000, 2000])
def test_work_is_linear_in_tokens_and_texts(tokens):
    one = operations(tokens, 2, SMALL)
    assert operations(3 * tokens, 6, SMALL) == 3 * one > 0
