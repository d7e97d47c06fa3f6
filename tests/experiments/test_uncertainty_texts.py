import json

import numpy as np
import pytest

from experiments.uncertainty_texts import NATURAL, SHUFFLED, texts, unseen, windows
from uets_jax.data.tokenizer import ByteTokenizer
from uets_jax.errors import UserError

TARGET = ["The cat sat on a mat by the sea.", "A red house, an old dog."]


@pytest.fixture
def folders(tmp_path):
    """(stores, data): target t, near n; the corpus has code and verse, too."""
    stores, data = tmp_path / "stores", tmp_path / "data"
    (stores / "pool").mkdir(parents=True)
    data.mkdir()
    recipe = {"recipe": {"target": "t", "near": ["n"]}}
    (stores / "pool" / "pool.json").write_text(json.dumps(recipe))
    lines = lambda rows: "".join(json.dumps(row) + "\n" for row in rows)
    held = [{"id": str(i), "domain": "t", "text": t} for i, t in enumerate(TARGET)]
    (stores / "mixture.valid_a.jsonl").write_text(lines(held))
    rows = [
        {"id": f"{domain}{i}", "domain": domain, "text": f"{domain} {i}"}
        for domain in ("t", "n", "code", "verse")
        for i in range(2)
    ]
    (data / "train-0.jsonl").write_text(lines(rows))
    (data / "valid.jsonl").write_text(lines(rows))
    return stores, data


def test_kinds_are_target_text_its_shuffles_and_domains_that_the_pool_lacks(folders):
    found = texts(*folders)
    assert list(found) == [NATURAL, *SHUFFLED, "code", "verse"]
    assert unseen([*found]) == ["code", "verse"]
    assert found[NATURAL] == TARGET
    assert found["verse"] == ["verse 0", "verse 1"]
    for before, words, letters in zip(
        TARGET, *(found[k] for k in SHUFFLED), strict=True
    ):
        assert sorted(words.split()) == sorted(before.split())
        assert sorted(letters) == sorted(before)
        assert len({before, words, letters}) == 3
    assert texts(*folders) == found


def test_a_corpus_without_other_domains_is_refused(folders):
    stores, data = folders
    recipe = {"recipe": {"target": "t", "near": ["n", "code", "verse"]}}
    (stores / "pool" / "pool.json").write_text(json.dumps(recipe))
    with pytest.raises(UserError, match="every domain"):
        texts(stores, data)


def test_windows_are_full_and_spread_over_the_text():
    tokenizer = ByteTokenizer()
    documents = ["a" * 50, "b" * 50]
    every = windows(documents, tokenizer, 10, 99)
    tokens = np.concatenate([[tokenizer.eot], *([ord(x)] * 50 for x in "ab")])
    tokens = np.insert(tokens, 51, tokenizer.eot)
    assert every.tokens.shape == (10, 10)
    np.testing.assert_array_equal(every.tokens.ravel(), tokens[:100])
    np.testing.assert_array_equal(every.targets.ravel(), tokens[1:101])
    some = windows(documents, tokenizer, 10, 3)
    assert some.ids.tolist() == [0, 4, 9]


def test_too_little_text_is_refused():
    with pytest.raises(UserError, match="does not fill 10 tokens"):
        windows(["short"], ByteTokenizer(), 10, 4)
