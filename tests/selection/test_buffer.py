"""The buffer against offline top-k, Plackett-Luce frequencies, ages, and in place."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uets_jax.errors import UserError
from uets_jax.selection.buffer import aged, filled, inclusion, init, merge, take

ROW = {"id": jax.ShapeDtypeStruct((), jnp.int32)}
NOW = jnp.asarray(3)
offer = jax.jit(merge)
draw = jax.jit(take, static_argnums=1)


def stream(values, start=0):
    """Keys, and rows that say which candidate they are."""
    keys = jnp.asarray(values, jnp.float32)
    return keys, {"id": jnp.arange(start, start + len(keys), dtype=jnp.int32)}


def buffer_of(values):
    """A full buffer; what stands at place i has the id i."""
    state = init(len(values), ROW)
    keys, rows = stream(values)
    return state._replace(keys=keys, rows=rows)


def one_by_one(held, keys, start):
    """An oracle: a list of [key, id], each candidate against the worst of it."""
    for i in sorted(range(len(keys)), key=lambda i: (-keys[i], i)):
        worst = min(range(len(held)), key=lambda p: (held[p][0], -p))
        if keys[i] > held[worst][0]:
            held[worst] = [keys[i], start + i]


chunks = st.lists(
    st.lists(st.integers(-3, 3), min_size=6, max_size=6), min_size=1, max_size=5
)


@given(chunks, st.sampled_from([1, 4, 6, 9]))
@settings(max_examples=40)
def test_it_holds_the_best_of_the_stream_with_ties_by_place(values, capacity):
    state, held = init(capacity, ROW), [[-np.inf, 0] for _ in range(capacity)]
    for number, chunk in enumerate(values):
        keys, rows = stream(chunk, 6 * number)
        state = offer(state, keys, rows, NOW)
        one_by_one(held, chunk, 6 * number)
    offline = sorted(itertools.chain(*values), reverse=True)[:capacity]
    found = np.asarray(state.keys)
    assert sorted(found[found > -np.inf], reverse=True) == offline
    assert found.tolist() == [key for key, _ in held]
    assert state.rows["id"].tolist() == [row for _, row in held]


@given(st.permutations(range(12)), st.sampled_from([(1, 1), (6, 2), (12, 5), (4, 4)]))
@settings(max_examples=30)
def test_what_is_drawn_is_the_best_and_leaves(values, sizes):
    capacity, n = sizes
    state = offer(init(capacity, ROW), *stream(values), NOW)
    drawn, left = draw(state, n, NOW + 4)
    best = sorted(values, reverse=True)
    assert drawn.scores.tolist() == best[:n]
    assert [values[i] for i in drawn.rows["id"]] == best[:n]
    assert drawn.ages.tolist() == [4] * n
    rest = best[n:capacity]
    assert float(drawn.threshold) == (rest[0] if rest else -np.inf)
    found = np.asarray(left.keys)
    assert sorted(found[found > -np.inf], reverse=True) == rest
    assert int(filled(left)) == capacity - n


def test_equal_keys_come_in_the_order_of_their_places():
    drawn, _ = draw(buffer_of([1.0, 2, 1, 2, 1]), 4, NOW)
    assert drawn.rows["id"].tolist() == [1, 3, 0, 2]


def test_more_is_asked_than_there_is():
    state = offer(init(4, ROW), *stream([5.0, 7.0]), NOW)
    drawn, left = draw(state, 3, NOW)
    assert drawn.valid.tolist() == [True, True, False]
    assert drawn.rows["id"][:2].tolist() == [1, 0]
    assert int(filled(left)) == 0
    again, _ = draw(left, 3, NOW)
    assert not again.valid.any()


def test_nan_and_minus_infinity_never_enter_nor_leave():
    state = init(4, ROW)
    state = offer(state, *stream([np.nan, 2.0, -np.inf, 1.0]), NOW)
    assert int(filled(state)) == 2
    drawn, _ = draw(state, 2, NOW, state.keys.at[state.keys.argmax()].set(jnp.nan))
    assert drawn.valid.tolist() == [True, False]
    assert drawn.rows["id"].tolist()[0] == 3


def test_old_rows_are_worth_less_and_make_room():
    state = offer(init(3, ROW), *stream([9.0, 8, 7]), jnp.asarray(0))
    worth = aged(state, jnp.asarray(10), rate=0.5)
    assert sorted(worth.tolist()) == [2, 3, 4]
    expired = jnp.asarray(11), 0.5, jnp.asarray(10.0)
    assert (aged(state, *expired) == -jnp.inf).all()
    state = offer(state, *stream([3.5], 5), jnp.asarray(10), worth)
    assert sorted(state.rows["id"].tolist()) == [0, 1, 5]
    assert sorted(state.keys.tolist()) == [3.5, 8, 9]  # as they were offered
    assert sorted(state.birth.tolist()) == [0, 0, 10]
    now = jnp.asarray(12)
    drawn, _ = draw(state, 3, now, aged(state, now, 0.5, 10.0))
    assert drawn.rows["id"].tolist()[0] == 5
    assert drawn.valid.tolist() == [True, False, False]
    assert float(drawn.scores[0]) == 2.5


def many(scores, n, temperature, draws=20_000):
    """The same draw with many keys."""
    state, keys = buffer_of(scores), jax.random.split(jax.random.key(1), draws)
    one = lambda key: take(state, n, NOW, None, temperature, key)[0]
    return jax.jit(jax.vmap(one))(keys)


def test_noise_draws_by_the_probabilities_of_plackett_and_luce():
    scores, temperature = np.array([0.0, 1.0, -1.0, 0.5]), 0.7
    drawn = many(scores, 2, jnp.asarray(temperature))
    p = np.exp(scores / temperature) / np.exp(scores / temperature).sum()
    pairs, counts = np.unique(np.asarray(drawn.rows["id"]), axis=0, return_counts=True)
    expected = [20_000 * p[i] * p[j] / (1 - p[i]) for i, j in pairs]
    assert len(pairs) == 12
    chi2 = sum((c - e) ** 2 / e for c, e in zip(counts, expected, strict=True))
    assert chi2 < 31.3  # 99.9 % point of 11 degrees of freedom


def test_temperature_zero_is_the_order_of_the_scores(key):
    state = buffer_of([0.0, 3, 1, 2])
    drawn, _ = draw(state, 3, NOW, None, jnp.asarray(0.0), key)
    assert drawn.rows["id"].tolist() == [1, 3, 2]
    weights = inclusion(drawn.scores, drawn.threshold, 0.0)
    np.testing.assert_allclose(weights, 1)


def test_inverse_inclusion_is_an_unbiased_weight():
    scores = [0.0, 2.0, -1.0, 0.5, 1.0]
    drawn = many(scores, 3, 1.5)
    chance = jax.vmap(inclusion, (0, 0, None))(drawn.scores, drawn.threshold, 1.5)
    weights = np.zeros((20_000, 5))
    np.put_along_axis(weights, np.asarray(drawn.rows["id"]), 1 / chance, 1)
    error = weights.std(0) / np.sqrt(20_000)
    assert (np.abs(weights.mean(0) - 1) < 4 * error).all()
    assert (error < 0.03).all()


def test_everything_is_included_where_nothing_is_left_behind(key):
    drawn, _ = draw(buffer_of([0.0, 1.0]), 2, NOW, None, jnp.asarray(1.0), key)
    chance = inclusion(drawn.scores, drawn.threshold, 1.0)
    assert chance.tolist() == [1, 1]
    nothing = inclusion(jnp.full(2, -jnp.inf), drawn.threshold, 1.0)
    assert nothing.tolist() == [0, 0]


def test_only_rows_that_move_are_written():
    """No temporary of the payload's size: rows are scattered into the donated state."""
    row = {"tokens": jax.ShapeDtypeStruct((64,), jnp.int32)}
    state, keys = init(2048, row), jnp.zeros(16)
    rows, payload = {"tokens": jnp.zeros((16, 64), jnp.int32)}, 2048 * 64 * 4

    def step(state, keys, rows, now, key):
        state = merge(state, keys, rows, now, aged(state, now, 0.1))
        return take(state, 8, now, aged(state, now, 0.1), 1.0, key)

    given = state, keys, rows, NOW, jax.random.key(0)
    held = jax.jit(step, donate_argnums=0).lower(*given).compile().memory_analysis()
    assert held is not None
    assert held.alias_size_in_bytes >= payload
    assert held.temp_size_in_bytes < payload / 4


def test_any_pytree_of_any_dtype_is_held():
    row = (
        jax.ShapeDtypeStruct((3,), jnp.uint16),
        {"x": jax.ShapeDtypeStruct((), bool)},
    )
    state = init(2, row)
    chex.assert_tree_shape_prefix(state, (2,))
    rows = jnp.ones((5, 3), jnp.uint16), {"x": jnp.ones(5, bool)}
    after = offer(state, jnp.arange(5.0), rows, NOW)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, after)
    assert bool(after.rows[1]["x"].all())


def test_sizes_that_make_no_sense_are_refused():
    with pytest.raises(UserError, match=r"buffer\.capacity"):
        init(0, ROW)
    for n in (0, 3):
        with pytest.raises(UserError, match=f"{n} rows of 2"):
            take(init(2, ROW), n, NOW)
