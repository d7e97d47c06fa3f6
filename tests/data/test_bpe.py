import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uets_jax.data.bpe import from_tokenizer_json, train_bpe
from uets_jax.data.canonical import EOT
from uets_jax.data.pieces import PIECE
from uets_jax.errors import UserError

TEXTS = ["the cat sat on the mat\n" * 30, "Grüße aus Köln, 漢字 🙂 " * 20]


@pytest.fixture(scope="module")
def trained():
    return train_bpe(TEXTS, 290)


def test_training_fills_the_vocabulary_and_shortens_text(trained):
    assert trained.vocab_size == 290
    assert len(trained.encode(TEXTS[0])) < 0.4 * len(TEXTS[0])
    assert train_bpe(["ab"], 5000).vocab_size <= 258


def test_training_is_deterministic_over_processes_and_threads(trained):
    code = f"""
from uets_jax.data.bpe import train_bpe
print(train_bpe({TEXTS!r}, 290).hash)
"""
    command, env = [sys.executable, "-c", code], {"RAYON_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == trained.hash


special = st.sampled_from([EOT, "  ", "\r\n", "cat", "🙂", "\0", "e\u0301", "ﬁ"])


@given(st.lists(st.text() | special).map("".join))
def test_nothing_is_lost_and_bytes_are_counted(trained, text):
    ids = trained.encode(text)
    assert ids.dtype == np.int32
    assert trained.decode(ids) == text
    assert trained.token_bytes[ids].sum() == len(text.encode())
    assert trained.eot not in ids


def test_batches_agree_with_single_texts(trained):
    texts = ["", *TEXTS, "", "x" * 100]
    for ids, text in zip(trained.encode_batch(texts), texts, strict=True):
        np.testing.assert_array_equal(ids, trained.encode(text))
    assert trained.encode_batch([]) == []


def test_cutting_a_long_text_changes_no_token(trained):
    text = TEXTS[0] * 300
    assert len(text) > 3 * PIECE
    whole = trained._encoder.encode(text, add_special_tokens=False).ids
    assert trained.encode(text).tolist() == whole


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_five_megabytes_without_a_space_are_encoded_in_bounded_memory():
    code = """
from uets_jax.data.bpe import train_bpe
coder, text = train_bpe(["the cat " * 99], 300), "catnip" * 900_000
assert coder.decode(coder.encode(text)) == text
print(next(row for row in open("/proc/self/status") if "VmHWM" in row).split()[1])
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 500_000


def test_json_is_the_whole_tokenizer_and_reads_back_equal(trained):
    again = from_tokenizer_json(json.loads(trained.to_json()), "here")
    assert (again, again.hash) == (trained, trained.hash)
    assert again.decode(trained.encode("the cat")) == "the cat"


def test_decoding_needs_no_package(trained, monkeypatch):
    ids = trained.encode("the cat 🙂")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    again = from_tokenizer_json(json.loads(trained.to_json()), "here")
    assert again.decode(ids) == "the cat 🙂"
    assert again.decode([again.eot, 10**6]) == "\ufffd"
    with pytest.raises(UserError, match="pip install tokenizers"):
        again.encode("the cat")


def test_a_literal_added_token_is_matched_and_counted(trained):
    data = json.loads(trained.to_json())
    data["added_tokens"].append({"id": 290, "content": " é ", "special": False})
    again = from_tokenizer_json(data, "here")
    ids = again.encode("a é b")
    assert 290 in ids
    assert again.decode(ids) == "a é b"
    assert (again.vocab_size, again.token_bytes[290]) == (291, 4)


def test_a_file_that_the_encoder_refuses_is_told(trained):
    broken, gap = (json.loads(trained.to_json()) for _ in range(2))
    broken["model"]["merges"] = [["q"]]
    with pytest.raises(UserError, match="can't be used"):
        from_tokenizer_json(broken, "here").encode("a")
    gap["added_tokens"].append({"id": 999, "content": "日本"})
    with pytest.raises(UserError, match="'日本' has another id"):
        from_tokenizer_json(gap, "here").encode("a")
