"""The best texts up to a share of the tokens."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uets_jax.errors import UserError
from uets_jax.selection.keep import keep_best

pools = st.lists(st.tuples(st.integers(-3, 3), st.integers(1, 9)), min_size=1)


def test_the_best_are_kept_until_the_share_is_reached():
    scores, lengths = np.array([1.0, 3.0, 2.0, 0.0]), np.array([10, 10, 10, 10])
    assert keep_best(scores, lengths, 0.5).tolist() == [False, True, True, False]
    assert keep_best(scores, lengths, 0.51).tolist() == [True, True, True, False]
    assert keep_best(scores, lengths, 1.0).all()


def test_equal_scores_go_by_place():
    keep = keep_best(np.zeros(4), np.full(4, 3), 0.5)
    assert keep.tolist() == [True, True, False, False]


@given(pools, st.floats(0.01, 1))
@settings(max_examples=50)
def test_no_more_than_one_text_beyond_the_share_and_none_better_left(pool, share):
    scores, lengths = (np.array(column) for column in zip(*pool, strict=True))
    keep = keep_best(scores.astype(float), lengths, share)
    held = lengths[keep].sum()
    assert held >= share * lengths.sum() - 1e-9
    last = np.lexsort((np.arange(len(pool)), -scores))[keep.sum() - 1]
    assert held - lengths[last] < share * lengths.sum()
    assert not (~keep).any() or scores[~keep].max() <= scores[keep].min()


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(UserError, match="keep: the share must be"):
        keep_best(np.zeros(1), np.ones(1, int), share)


def test_a_score_that_is_no_number_is_refused():
    with pytest.raises(UserError, match="score of text 1 is not a number"):
        keep_best(np.array([0.0, np.nan]), np.ones(2, int), 0.5)
