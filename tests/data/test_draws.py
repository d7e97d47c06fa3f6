import collections

import numpy as np

from uets_jax.data.draws import Draws


def test_a_stream_is_known_by_heart():
    draws = Draws("copies", 0, "a")
    assert [draws.below(1000) for _ in range(4)] == [228, 308, 502, 412]
    assert draws.order(6) == [1, 4, 2, 3, 0, 5]


def test_streams_differ_by_each_label_and_by_their_border():
    first = [
        Draws(*labels).below(2**60) for labels in [("ab", 1), ("a", "b1"), ("ab", 2)]
    ]
    assert len(set(first)) == 3


def test_an_order_is_a_permutation():
    draws = Draws("x")
    one, other = draws.order(50), draws.order(50)
    assert sorted(one) == sorted(other) == list(range(50))
    assert one != other
    assert draws.order(0) == []


def test_numbers_are_spread_evenly():
    draws = Draws("even")
    counts = collections.Counter(draws.below(5) for _ in range(5000))
    assert set(counts) == set(range(5))
    assert min(counts.values()) > 850
    found = np.array([draws.between(2.0, 3.0) for _ in range(5000)])
    assert found.min() >= 2
    assert found.max() < 3
    assert abs(found.mean() - 2.5) < 0.02
    assert {draws.pick("abc") for _ in range(50)} == set("abc")
