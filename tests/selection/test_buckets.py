"""Bucket records against averages by hand; progress; the cells of the bins."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.selection import buckets
from uets_jax.selection.scores import RowScores

K = 4


def scores(losses):
    """Row scores whose fields are multiples of the losses."""
    losses = jnp.asarray(losses, jnp.float32)
    return RowScores(*(losses * (n + 1) for n in range(7)))


def batch(ids, losses):
    return jnp.asarray(ids, jnp.int32), scores(losses)


update = jax.jit(buckets.update)


def test_a_record_is_the_average_of_segment_means_by_hand():
    """Each batch counts (1 - rate)^(rows of the bucket after it) (1 - (1 - rate)^m)."""
    state, rng = buckets.init(K), np.random.default_rng(0)
    fast, slow = 0.1, 0.01
    total, weight = np.zeros((2, K)), np.zeros((2, K))
    for _ in range(12):
        ids, losses = rng.integers(0, K - 1, 6), rng.uniform(1, 5, 6)
        state = update(state, *batch(ids, losses), fast, slow)
        for k in set(ids.tolist()):
            mine = losses[ids == k]
            keep = np.array([(1 - fast) ** len(mine), (1 - slow) ** len(mine)])
            total[:, k] = keep * total[:, k] + (1 - keep) * mine.mean()
            weight[:, k] = keep * weight[:, k] + (1 - keep)
    means = total[:, : K - 1] / weight[:, : K - 1]
    got = buckets.records(state, fast, slow)
    np.testing.assert_allclose(got.scores.loss[: K - 1], means[0], rtol=1e-5)
    np.testing.assert_allclose(got.scores.el2n[: K - 1], 3 * means[0], rtol=1e-5)
    np.testing.assert_allclose(got.loss_slow[: K - 1], means[1], rtol=1e-5)
    learned = buckets.progress(state, fast, slow)
    np.testing.assert_allclose(learned[: K - 1], means[1] - means[0], atol=1e-5)
    assert float(state.seen.sum()) == 72


def test_one_batch_gives_its_plain_mean_whatever_the_rates():
    state = update(buckets.init(K), *batch([1, 1, 2], [2.0, 4.0, 5.0]))
    got = buckets.records(state)
    np.testing.assert_allclose(got.scores.loss[1:3], [3.0, 5.0], rtol=1e-5)
    np.testing.assert_allclose(got.loss_slow[1:3], [3.0, 5.0], rtol=1e-5)
    np.testing.assert_allclose(buckets.progress(state), np.zeros(K), atol=2e-6)
    assert not np.abs(got.progress).max() > 0.01


def test_a_bucket_that_the_batch_lacks_keeps_its_record():
    first = update(buckets.init(K), *batch([0, 1], [2.0, 3.0]))
    after = update(first, *batch([0, 0], [9.0, 9.0]))
    row = lambda state: jax.tree.map(lambda x: x[1:], state)
    chex.assert_trees_all_equal(row(first), row(after))


def test_a_bucket_without_rows_gets_the_mean_of_the_others_and_no_progress():
    state = update(buckets.init(K), *batch([0, 1], [2.0, 4.0]))
    got = buckets.records(state)
    np.testing.assert_allclose(got.scores.loss, [2.0, 4.0, 3.0, 3.0], rtol=1e-5)
    assert not got.progress[2:].any()
    empty = buckets.records(buckets.init(K))
    assert not any(x.any() for x in jax.tree.leaves(empty))


def test_rows_outside_and_rows_that_are_no_number_are_left_out():
    ids = [0, -1, K, 0]
    state = update(buckets.init(K), *batch(ids, [1.0, 5.0, 6.0, np.nan]))
    assert state.seen.tolist() == [1.0, 0, 0, 0]
    chex.assert_tree_all_finite(state)
    np.testing.assert_allclose(buckets.records(state).scores.loss[0], 1.0, rtol=1e-5)


def test_progress_marks_the_bucket_that_is_being_learned_not_the_noise():
    """Bucket 0 falls by 0.01 a row, 1 stays high, 2 is noisy, 3 rises."""
    state, rng = buckets.init(K), np.random.default_rng(0)
    for step in range(100):
        losses = [5 - 0.04 * step, 7.0, rng.normal(6, 0.3), 2 + 0.01 * step]
        ids = np.repeat(np.arange(K), 4)
        state = update(state, *batch(ids, np.repeat(losses, 4)))
    got = buckets.records(state)
    assert int(got.progress.argmax()) == 0
    assert float(got.progress[0]) > 1
    assert float(buckets.progress(state)[3]) < 0
    np.testing.assert_allclose(got.progress.mean(), 0, atol=1e-6)
    np.testing.assert_allclose(got.progress.std(), 1, rtol=1e-3)


def test_progress_of_a_steady_fall_is_what_the_docstring_says():
    state, fast, slow = buckets.init(1), 0.05, 0.02
    step = lambda s, x: (
        buckets.update(s, jnp.zeros(1, jnp.int32), scores(x[None]), fast, slow),
        None,
    )
    losses = 100 - 0.01 * jnp.arange(2000.0)
    state = jax.jit(lambda s: jax.lax.scan(step, s, losses)[0])(state)
    np.testing.assert_allclose(
        buckets.progress(state, fast, slow)[0], 0.01 * (50 - 20), rtol=0.01
    )


def test_the_time_of_a_bucket_runs_in_its_own_rows():
    """Four rows at once weigh as much as four equal rows in a sequence."""
    first = update(buckets.init(1), *batch([0], [9.0]))
    at_once = update(first, *batch([0] * 4, [1.0] * 4))
    one_by_one = first
    for _ in range(4):
        one_by_one = update(one_by_one, *batch([0], [1.0]))
    chex.assert_trees_all_close(at_once, one_by_one, rtol=1e-6)


def test_equal_values_have_no_spread_to_standardise():
    known = jnp.array([True, True, False])
    assert not buckets.standardised(jnp.array([2.0, 2.0, 9.0]), known).any()
    np.testing.assert_allclose(
        buckets.standardised(jnp.array([1.0, 3.0, 9.0]), known),
        [-1, 1, 0],
        atol=1e-5,
    )
    tiny = buckets.standardised(jnp.array([1e-6, 3e-6, 0.0]), known)
    assert float(jnp.abs(tiny).max()) < 0.01


def test_a_candidate_gets_the_record_of_its_bucket():
    state = update(buckets.init(K), *batch([0, 1], [2.0, 4.0]))
    record = buckets.records(state)
    got = buckets.lookup(record, jnp.array([1, 0, 1], jnp.int32))
    np.testing.assert_allclose(got.scores.loss, [4.0, 2.0, 4.0], rtol=1e-5)
    assert got.seen.tolist() == [1.0, 1.0, 1.0]


def test_the_cell_of_a_row_is_that_of_numpys_digitize():
    """On a grid, so that some values lie on an edge."""
    first, second = np.random.default_rng(0).integers(-6, 7, (2, 200)) / 2
    bounds = np.array([-1.0, 0.5]), np.array([0.0])
    as_jax = lambda *xs: tuple(jnp.asarray(x, jnp.float32) for x in xs)
    got = buckets.bucket_of(as_jax(first, second), as_jax(*bounds))
    cells = 2 * np.digitize(first, bounds[0], right=True)
    cells += np.digitize(second, bounds[1], right=True)
    np.testing.assert_array_equal(got, cells)
    assert set(np.asarray(got).tolist()) == set(range(6))


def test_features_and_edges_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="argument"):
        buckets.bucket_of((jnp.ones(2),), (jnp.ones(1), jnp.ones(1)))


def test_the_component_is_update_and_records():
    part = buckets.buckets(K)
    got, state = part.apply(part.init(None), *batch([0, 3], [1.0, 2.0]))
    expected = buckets.update(buckets.init(K), *batch([0, 3], [1.0, 2.0]))
    chex.assert_trees_all_equal(state, expected)
    chex.assert_trees_all_equal(got, buckets.records(expected))
