import json
from pathlib import Path

import pytest

from uets_jax.data.bpe import EOT, train_bpe
from uets_jax.data.loading import from_json, load, resolve
from uets_jax.data.tokenizer import ByteTokenizer
from uets_jax.errors import UserError

REAL = Path(__file__).parents[3] / "shared" / "data" / "tokenizers"
TEXT = f"Hello world,  I'm {EOT} héllo e\u0301 ﬁ\n\n    x = 1\t漢字🙂"


def test_specs():
    assert resolve("bytes") == ByteTokenizer()
    assert resolve("bpe:4096") == 4096
    for spec in ("bpe:", "bpe:256", "bpe:x", "bpe:-300", "bpe:99999999999", "bpe:٣٠٠"):
        with pytest.raises(UserError, match="number of tokens"):
            resolve(spec)
    with pytest.raises(UserError, match="no tokenizer here"):
        resolve("gpt2")


def test_json_of_each_kind_reads_back(tmp_path):
    for tokenizer in (ByteTokenizer(), train_bpe(["a b c"], 260)):
        assert from_json(tokenizer.to_json()) == tokenizer
        path = tmp_path / "tokenizer.json"
        path.write_text(tokenizer.to_json(), "utf-8")
        assert load(str(path)) == load(str(tmp_path)) == tokenizer


def test_files_of_gpt2_are_the_same_tokenizer(tmp_path):
    trained = train_bpe(["the cat sat on the mat " * 9, "le chat noir " * 9], 290)
    model = json.loads(trained.to_json())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    rows = ["#version: 0.2", *map(" ".join, model["merges"]), ""]
    (tmp_path / "merges.txt").write_text("\n".join(rows), "utf-8")
    loaded = load(str(tmp_path))
    assert (loaded.eot, loaded.vocab_size) == (trained.eot, trained.vocab_size)
    assert loaded.encode(TEXT).tolist() == trained.encode(TEXT).tolist()


def test_bad_files_are_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"tokenizer\.json: broken JSON"):
        load(str(tmp_path))
    (tmp_path / "tokenizer.json").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"tokenizer\.json: can't be read"):
        load(str(tmp_path))
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "merges.txt").write_text("")
    for vocab, why in (("{", "broken JSON"), ("[]", "not an object"), ("{}", "lacks")):
        (tmp_path / "vocab.json").write_text(vocab)
        with pytest.raises(UserError, match=why):
            load(str(tmp_path))


# (ids of "Hello world", vocabulary), published for both
PUBLISHED = {"gpt2": ([15496, 995], 50257), "gpt-neox-20b": ([12092, 1533], 50277)}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.skipif(not REAL.exists(), reason="no tokenizers on this machine")
def test_real_tokenizers(name):
    ids, size = PUBLISHED[name]
    tokenizer = load(str(REAL / name))
    assert tokenizer.encode("Hello world").tolist() == ids
    assert tokenizer.vocab_size == len(tokenizer.token_bytes) == size
    coded = tokenizer.encode(TEXT + " " * 30)
    assert tokenizer.decode(coded) == TEXT + " " * 30
    assert tokenizer.token_bytes[coded].sum() == len((TEXT + " " * 30).encode())
    assert tokenizer.eot not in coded
    assert tokenizer.decode([tokenizer.eot]) == ""
