import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uets_jax.data.tokenizer import ByteTokenizer
from uets_jax.errors import UserError

TOKENIZER = ByteTokenizer()


@given(st.text())
def test_bytes_are_the_ids(text):
    ids = TOKENIZER.encode(text)
    assert ids.dtype == np.int32
    assert ids.tolist() == list(text.encode())
    assert TOKENIZER.decode(ids) == text
    assert TOKENIZER.token_bytes[ids].sum() == len(text.encode())


def test_the_separator_is_silent_and_strange_ids_show():
    assert TOKENIZER.vocab_size == 257
    assert TOKENIZER.token_bytes[TOKENIZER.eot] == 0
    assert TOKENIZER.decode([104, 256, 105, 999, -1]) == "hi\ufffd\ufffd"
    assert TOKENIZER.decode(np.array([[0xC3]])) == "\ufffd"
    assert TOKENIZER.decode([]) == ""


def test_hash_is_of_the_json():
    want = hashlib.sha256(TOKENIZER.to_json().encode()).hexdigest()
    assert TOKENIZER.hash == ByteTokenizer().hash == want


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(UserError, match="lone surrogate"):
        TOKENIZER.encode("\ud800")
