import pytest
from hypothesis import given
from hypothesis import strategies as st

from uets_jax.data.faults import BadDocument, Faults, usable
from uets_jax.errors import UserError

BAD = {
    b"": "empty",
    "": "empty",
    b"caf\xe9": "not UTF-8",
    b"ab\0c": "NUL byte",
    "ab\0c": "NUL byte",
    "\ud800": "lone surrogate",
}


@pytest.mark.parametrize("raw", BAD, ids=repr)
def test_names_what_is_wrong_with_a_text(raw):
    with pytest.raises(BadDocument) as caught:
        usable(raw)
    assert caught.value.reason == BAD[raw]


def test_tells_the_byte_where_the_trouble_starts():
    with pytest.raises(BadDocument) as caught:
        usable(b"ab\n\xff")
    assert caught.value.offset == 3


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1))
def test_good_text_passes_unchanged(text):
    assert usable(text) == usable(text.encode()) == text


def test_error_stops_and_skip_counts():
    with pytest.raises(UserError, match=r"^a\.txt, line 3: empty; .*--data\.on-error"):
        Faults("error").report("a.txt, line 3", BadDocument("empty"))
    faults = Faults("skip")
    for reason in ("empty", "NUL byte", "empty"):
        faults.report("a.txt", BadDocument(reason, "some detail"))
    assert faults.counts == {"empty": 2, "NUL byte": 1}
