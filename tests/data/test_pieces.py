import pytest
from hypothesis import given
from hypothesis import strategies as st

from uets_jax.data.pieces import PIECE, groups, pieces, utf8
from uets_jax.errors import UserError


@given(st.text(st.sampled_from("ab \n\té"), max_size=200), st.integers(1, 30))
def test_pieces_join_to_the_text_and_are_short(text, size):
    parts = list(pieces(text, size))
    assert "".join(parts) == text
    assert all(0 < len(part) <= size for part in parts)


@given(st.lists(st.text("abc", min_size=1, max_size=9), max_size=40))
def test_words_stay_whole_and_keep_the_space_before_them(words):
    text = " ".join(words)
    for part in list(pieces(text, 10))[1:]:
        assert part.startswith(" ")


@given(st.lists(st.text("ab", max_size=6)), st.integers(1, 20))
def test_groups_keep_the_order_and_are_not_much_too_long(parts, size):
    lists = list(groups(parts, size))
    assert [part for group in lists for part in group] == parts
    assert all(len("".join(group[:-1])) < size for group in lists)
    assert all(len("".join(group)) >= size for group in lists[:-1])


def test_five_megabytes_without_a_space_are_cut_all_the_same():
    assert {len(part) for part in pieces("x" * 80 * PIECE)} == {PIECE}


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(UserError, match="character 2"):
        utf8("ab\udc80")
    with pytest.raises(UserError, match="lone surrogate"):
        list(pieces("\ud800"))
