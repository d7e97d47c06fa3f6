import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uets_jax.data.bpe import train_bpe
from uets_jax.data.tokenizer import ByteTokenizer
from uets_jax.errors import UserError
from uets_jax.evaluate.passages import passages

BPE = train_bpe(["the theme is the thing, and the rest is the theory. " * 4], 300)
ids = lambda text: BPE.encode(text).tolist()


def test_scored_tokens_are_those_after_the_given_text():
    [found] = passages(BPE, [("and", " the theme")], 32)
    assert found.tokens.tolist() == [BPE.eot, *ids("and the theme")]
    assert found.scored == len(ids("and the theme")) - len(ids("and"))
    assert not found.cut


def test_where_the_border_is_inside_a_token_both_are_encoded_apart():
    assert len(ids("the")) == 1
    assert len(ids("th")) == 1
    [found] = passages(BPE, [("th", "e")], 32)
    assert found.tokens.tolist() == [BPE.eot, *ids("th"), *ids("e")]
    assert found.scored == 1


TEXTS = st.text(st.sampled_from("thema ,é"), max_size=20)
SCORED = st.text(st.sampled_from("thema ,é"), min_size=1, max_size=20)


@given(TEXTS, SCORED)
@settings(max_examples=200)
def test_scored_tokens_stand_for_the_scored_text(head, scored):
    [found] = passages(BPE, [(head, scored)], 64)
    assert BPE.decode(found.tokens[-found.scored :]) == scored
    assert BPE.decode(found.tokens) == head + scored


@pytest.mark.parametrize(
    ("text", "context", "expected", "scored", "cut"),
    [
        (("ab", "cd"), 4, [256, 97, 98, 99, 100], 2, False),
        (("ab", "cd"), 3, [97, 98, 99, 100], 2, True),
        (("ab", "cd"), 2, [98, 99, 100], 2, True),
        (("ab", "cd"), 1, [99, 100], 1, True),
        (("", "abcd"), 3, [97, 98, 99, 100], 3, True),
        (("", "a"), 3, [256, 97], 1, False),
    ],
)
def test_a_long_text_keeps_its_last_tokens(text, context, expected, scored, cut):
    [found] = passages(ByteTokenizer(), [text], context)
    np.testing.assert_array_equal(found.tokens, expected)
    assert (found.scored, found.cut) == (scored, cut)


@pytest.mark.parametrize("text", [("a", "\ud800"), ("\udc00", "a")])
def test_half_a_character_is_refused(text):
    with pytest.raises(UserError, match="lone surrogate"):
        passages(ByteTokenizer(), [text], 8)
