import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from uets_jax.uncertainty.calibration import (
    auroc,
    brier,
    ece,
    nll,
    ranks,
    reliability,
    spearman,
)

RNG = np.random.default_rng(0)
TIED = st.lists(st.integers(0, 5), min_size=2, max_size=30)


def test_reliability_by_hand():
    confidence = np.array([0.0, 0.2, 0.5, 0.51, 0.9, 1.0])
    right = np.array([False, True, True, False, True, True])
    rows = reliability(confidence, right, bins=2)
    np.testing.assert_array_equal(rows.number, [3, 3])
    np.testing.assert_allclose(rows.confidence, [0.7 / 3, 2.41 / 3])
    np.testing.assert_allclose(rows.accuracy, [2 / 3, 2 / 3])
    np.testing.assert_allclose((*rows.lower, *rows.upper), [0, 0.5, 0.5, 1])
    expected = (abs(2 - 0.7) + abs(2 - 2.41)) / 6
    assert ece(confidence, right, bins=2) == pytest.approx(expected)


def test_calibrated_predictions_have_no_error_and_others_their_gap():
    confidence = RNG.uniform(size=200_000)
    drawn = RNG.uniform(size=200_000)
    assert ece(confidence, drawn < confidence) < 0.01
    sure = np.full(1000, 0.9)
    assert ece(sure, np.arange(1000) < 600) == pytest.approx(0.3)


def test_scores_of_probabilities_equal_their_definitions():
    p = RNG.dirichlet(np.ones(6), 50)
    labels = RNG.integers(0, 6, 50)
    expected = -np.mean([math.log(row[y]) for row, y in zip(p, labels, strict=True)])
    assert nll(p, labels) == pytest.approx(expected)
    one_hot = np.eye(6)[labels]
    assert brier(p, labels) == pytest.approx(np.square(p - one_hot).sum(1).mean())
    assert nll(np.eye(6)[[0]], np.array([1])) < 90  # finite where p is 0


@given(TIED)
def test_ranks_equal_scipy(values):
    np.testing.assert_allclose(ranks(np.array(values, float)), stats.rankdata(values))


@given(TIED, st.randoms(use_true_random=False))
def test_auroc_equals_all_pairs(values, random):
    positive = np.array([random.random() < 0.5 for _ in values])
    scores = np.array(values, float)
    above = scores[positive][:, None] - scores[~positive][None, :]
    found = auroc(scores, positive)
    if above.size:
        assert found == pytest.approx(((above > 0) + 0.5 * (above == 0)).mean())
    else:
        assert math.isnan(found)


@given(TIED, st.randoms(use_true_random=False))
def test_spearman_equals_scipy(values, random):
    a = np.array(values, float)
    b = np.array([random.randint(0, 4) for _ in values], float)
    found = spearman(a, b)
    if np.ptp(a) and np.ptp(b):
        assert found == pytest.approx(stats.spearmanr(a, b)[0])  # pyright: ignore
    else:
        assert math.isnan(found)
