"""Algorithm R in batches: exact uniform inclusion, order, memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.selection.reservoir import MOST, ReservoirState, reservoir

ROW = jax.ShapeDtypeStruct((), jnp.int32)


def samples(capacity, total, chunk, draws, valid=None):
    """Final contents [draws, capacity] of the stream 0 .. total - 1."""
    part = reservoir(capacity, ROW)
    rows = jnp.arange(total, dtype=jnp.int32).reshape(-1, chunk)
    valid = jnp.ones(rows.shape, bool) if valid is None else valid

    def one(key):
        def step(state, x):
            number, rows, valid = x
            return part.apply(state, rows, valid, jax.random.fold_in(key, number))[1], 0

        given = jnp.arange(len(rows)), rows, valid
        return jax.lax.scan(step, part.init(None), given)[0].rows

    return np.asarray(
        jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(3), draws))
    )


def test_every_row_is_held_equally_often():
    capacity, total, draws = 5, 20, 8000
    held = samples(capacity, total, 10, draws)
    assert all(len(set(row)) == capacity for row in held[:200].tolist())
    counts = np.bincount(held.reshape(-1), minlength=total)
    share = capacity / total
    deviation = counts - draws * share
    # binomial counts that sum to a constant
    chi2 = (deviation**2).sum() / (draws * share * (1 - share)) * (total - 1) / total
    assert chi2 < 43.8  # 99.9 % point of 19 degrees of freedom


def test_pairs_are_held_equally_often():
    held = samples(2, 6, 1, 12_000)
    pairs, counts = np.unique(np.sort(held, 1), axis=0, return_counts=True)
    assert len(pairs) == 15
    assert ((counts - 800) ** 2 / 800).sum() < 36.1  # 99.9 %, 14 degrees of freedom


def test_rows_that_do_not_count_are_never_held():
    valid = jnp.arange(20).reshape(2, 10) % 3 > 0
    held = samples(4, 20, 10, 2000, valid)
    counts = np.bincount(held.reshape(-1), minlength=20)
    assert (counts[::3] == 0).all()
    kept = counts[np.arange(20) % 3 > 0]
    assert abs(kept - 2000 * 4 / 13).max() < 5 * np.sqrt(2000 * 4 / 13)


def test_the_first_rows_fill_it_in_order_and_places_tell_where(key):
    part = reservoir(6, {"x": jax.ShapeDtypeStruct((2,), jnp.float32)})
    rows = {"x": jnp.arange(8.0).reshape(4, 2)}
    valid = jnp.asarray([True, False, True, True])
    place, state = jax.jit(part.apply)(part.init(None), rows, valid, key)
    assert place.tolist() == [0, 6, 1, 2]
    np.testing.assert_array_equal(state.rows["x"][:3], rows["x"][jnp.array([0, 2, 3])])
    assert int(state.seen) == 3


def test_where_a_row_stands_is_what_was_said(key):
    part = reservoir(3, ROW)
    state, rows = part.init(None), jnp.arange(50, dtype=jnp.int32)
    place, state = jax.jit(part.apply)(state, rows, jnp.ones(50, bool), key)
    assert sorted(place[place < 3].tolist()) == [0, 1, 2]  # one row each: the last
    for at in range(3):
        assert int(rows[place == at][0]) == int(state.rows[at])


def test_the_count_ends_before_it_overflows(key):
    part = reservoir(2, ROW)
    late = ReservoirState(jnp.asarray(MOST), jnp.zeros(2, jnp.int32))
    _, after = jax.jit(part.apply)(late, jnp.ones(9, jnp.int32), jnp.ones(9, bool), key)
    assert int(after.seen) == MOST


def test_a_capacity_of_none_is_refused():
    with pytest.raises(UserError, match=r"reservoir\.capacity"):
        reservoir(0, ROW)
