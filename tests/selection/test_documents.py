"""Groups of texts: every token once, in order, never too many at a time."""

import numpy as np

from uets_jax.selection import documents
from uets_jax.selection.documents import flatten, groups, means


def test_a_flat_group_knows_text_and_place_of_every_token():
    flat = flatten([np.array([7, 8]), np.array([], int), np.array([9])])
    assert flat.ids.tolist() == [7, 8, 9]
    assert flat.ids.dtype == np.uint32
    assert flat.text.tolist() == [0, 0, 2]
    assert flat.place.tolist() == [0, 1, 0]
    assert flat.lengths.tolist() == [2, 0, 1]


def test_groups_are_bounded_and_complete(monkeypatch):
    monkeypatch.setattr(documents, "TEXTS", 3)
    monkeypatch.setattr(documents, "TOKENS", 10)
    texts = [[i] * size for i, size in enumerate([1, 2, 3, 40, 9, 1, 0, 0, 0, 5])]
    found = list(groups(iter(texts)))
    assert [len(g.lengths) for g in found] == [3, 1, 2, 3, 1]
    ids = np.concatenate([group.ids for group in found])
    np.testing.assert_array_equal(ids, np.concatenate(texts))


def test_no_text_is_no_group():
    assert list(groups([])) == []
    assert len(flatten([]).ids) == 0


def test_means_are_per_text_and_zero_where_there_is_nothing():
    values, text = np.array([1.0, 3.0, 5.0]), np.array([0, 0, 2])
    assert means(values, text, 4).tolist() == [2.0, 0.0, 5.0, 0.0]
