"""The oracles are scipy's own tests."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from uets_jax.errors import UserError
from uets_jax.measure.difference import break_even, difference


@pytest.mark.parametrize("n", [2, 3, 5, 9])
def test_paired_tests_are_scipys(n):
    rng = np.random.default_rng(n)
    a, b = rng.normal(1.0, 0.1, n), rng.normal(1.05, 0.1, n)
    known, found = stats.ttest_rel(a, b, alternative="less"), difference(a, b)
    assert found.mean == pytest.approx(np.mean(a - b))
    assert found.p == pytest.approx(known.pvalue)
    ends = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(ends)
    signs = np.array([*itertools.product([1, -1], repeat=n)])
    known = np.mean(signs @ (a - b) <= (a - b).sum() + 1e-12)
    assert found.p_exact == pytest.approx(known)


def test_unpaired_tests_are_welchs_and_all_relabellings():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1.0, 0.1, 4), rng.normal(1.05, 0.3, 6)
    found = difference(a, b, paired=False)
    known: Any = stats.ttest_ind(a, b, equal_var=False, alternative="less")
    assert found.p == pytest.approx(known.pvalue)
    ends = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(ends)
    gap = lambda x, y, axis: x.mean(axis) - y.mean(axis)
    known = stats.permutation_test((a, b), gap, vectorized=True, alternative="less")
    assert found.p_exact == pytest.approx(known.pvalue)


def test_few_pairs_cannot_be_surer_than_their_flips():
    found = difference([1.0, 1.1, 1.2], [2.0, 2.2, 2.3])
    assert found.p_exact == 1 / 8
    assert found.p < 0.01
    assert difference([2.0, 2.2, 2.3], [1.0, 1.1, 1.2]).p > 0.99
    assert difference([0.3, 0.1], [0.1, 0.3]).p_exact == 0.75


def test_without_spread_the_sign_decides():
    for paired in (True, False):
        lower = difference([1.0] * 3, [1.5] * 3, paired)
        assert lower[:4] == (-0.5, -0.5, -0.5, 0.0)
        assert difference([1.5] * 3, [1.0] * 3, paired).p == 1.0
        same = difference([1.0] * 3, [1.0] * 3, paired)
        assert (same.p, same.p_exact) == (0.5, 1.0)


def test_too_many_relabellings_are_not_counted():
    many = [1.0 + i for i in range(21)]
    assert difference(many, many[::-1]).p_exact is None
    assert difference(many, many[::-1], paired=False).p_exact is None


def test_break_even_is_cost_over_saving():
    assert break_even(100.0, 8.0) == 12.5
    assert break_even(0.0, 8.0) == 0.0
    assert break_even(100.0, 0.0) == break_even(100.0, -1.0) == math.inf


BAD = {
    "two or more finite": lambda: difference([1.0, math.nan], [1.0, 2.0]),
    "two or more": lambda: difference([1.0], [2.0]),
    "3 losses and 2: no pairs": lambda: difference([1.0, 2.0, 3.0], [1.0, 2.0]),
    "no negative cost": lambda: break_even(-1.0, 2.0),
    "saving nan": lambda: break_even(1.0, math.nan),
}


@pytest.mark.parametrize("complaint", BAD)
def test_bad_input_is_named_in_one_line(complaint):
    with pytest.raises(UserError, match=complaint) as caught:
        BAD[complaint]()
    assert "\n" not in str(caught.value)
