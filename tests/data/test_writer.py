import dataclasses
import json

import numpy as np
import pytest

from uets_jax.config import DataConfig
from uets_jax.data import writer
from uets_jax.data.bpe import train_bpe
from uets_jax.data.split import document_hash
from uets_jax.data.tokenizer import ByteTokenizer
from uets_jax.errors import UserError

TEXTS = [f"document {i} says {'word ' * (i % 7)}\n" for i in range(60)]


@pytest.fixture
def data(tmp_path) -> DataConfig:
    for i, text in enumerate(TEXTS):
        (tmp_path / f"{i:03}.txt").write_text(text)
    return DataConfig(
        source=f"files:{tmp_path}/*.txt",
        valid_fraction=0.2,
        tokenizer="bytes",
        cache=str(tmp_path / "cache"),
    )


def held_out(plan: writer.Plan) -> list[str]:
    return [text for text in TEXTS if document_hash(text.encode()) <= plan.cut]


def test_a_plan_holds_out_about_the_fraction(data):
    plan = writer.make_plan(data)
    share = len("".join(held_out(plan))) / len("".join(TEXTS))
    assert 0.2 <= share < 0.25
    nothing = dataclasses.replace(data, valid_source=data.source)
    assert writer.make_plan(nothing).cut == -1


def test_the_key_knows_text_split_tokenizer_and_skips(data, tmp_path):
    def key(**changes) -> str:
        return writer.make_plan(dataclasses.replace(data, **changes)).key

    first = key()
    assert key(length=99, source=f"files:{tmp_path}/0*.txt") == first
    others = [
        key(valid_fraction=0.3),
        key(tokenizer="bpe:300"),
        key(tokenizer="bpe:301"),
        key(valid_source=data.source),
        key(source=f"files:{tmp_path}/00*.txt"),
    ]
    (tmp_path / "zzz.txt").write_text("")
    others.append(key(on_error="skip"))
    assert len({first, *others}) == 7


def test_each_bin_is_separator_document_separator_document(data, tmp_path):
    plan, folder = writer.make_plan(data), tmp_path / "out"
    folder.mkdir()
    writer.write(folder, plan, ByteTokenizer())
    held = held_out(plan)
    for name, texts in (
        ("valid", held),
        ("train", [text for text in TEXTS if text not in held]),
    ):
        ids = np.fromfile(folder / f"{name}.bin", "<u2")
        want = [i for text in texts for i in (256, *text.encode())]
        assert ids.tolist() == want


def test_large_vocabularies_take_four_bytes(data, tmp_path):
    class Wide(ByteTokenizer):
        def _bytes(self):
            return [*super()._bytes(), *[b"?"] * 70_000]

        def encode_batch(self, texts):
            return [ids + 70_000 for ids in super().encode_batch(texts)]

    plan, folder = writer.make_plan(data), tmp_path / "out"
    folder.mkdir()
    writer.write(folder, plan, Wide())
    ids = np.fromfile(folder / "valid.bin", "<u4")
    assert ids[:2].tolist() == [256, 70_000 + ord("d")]


def test_a_source_that_changes_meanwhile_is_noticed(data, tmp_path):
    plan, folder = writer.make_plan(data), tmp_path / "out"
    folder.mkdir()
    (tmp_path / "003.txt").write_text("something else")
    with pytest.raises(UserError, match="changed while it was read"):
        writer.write(folder, plan, ByteTokenizer())
    bpe = dataclasses.replace(plan, tokenizer=300)
    with pytest.raises(UserError, match="changed while it was read"):
        writer.fit_tokenizer(bpe, folder)
    assert list(folder.glob("*.json*")) == []


def test_a_bpe_sees_the_training_side_alone(data, tmp_path):
    plan = writer.make_plan(dataclasses.replace(data, tokenizer="bpe:300"))
    held = held_out(plan)
    want = train_bpe([text for text in TEXTS if text not in held], 300)
    assert writer.fit_tokenizer(plan, tmp_path) == want


def test_a_bpe_sees_a_sample_of_bounded_size(data, monkeypatch):
    plan = writer.make_plan(data)
    monkeypatch.setattr(writer, "SAMPLE", 500)
    sample = list(writer._sample(plan))
    assert sample == list(writer._sample(plan))
    assert 100 < len("".join(sample)) <= 500
    assert not set(sample) & set(held_out(plan))


def large(tmp_path, seed: int) -> DataConfig:
    """Four documents, each nearly as large as the sample."""
    letters = np.random.default_rng(seed).choice(list("abcdefgh "), (4, 900))
    rows = [json.dumps({"text": "".join(row)}) for row in letters]
    (tmp_path / "large.jsonl").write_text("\n".join(rows))
    return DataConfig(
        source=f"jsonl:{tmp_path}/large.jsonl",
        tokenizer="bpe:300",
        cache=str(tmp_path / "cache"),
    )


@pytest.mark.parametrize("seed", range(20))
def test_a_sample_of_a_few_large_documents_is_about_as_large_as_wanted(
    tmp_path, monkeypatch, seed
):
    monkeypatch.setattr(writer, "SAMPLE", 1000)
    data = large(tmp_path, seed)
    plan = writer.make_plan(data)
    sample = list(writer._sample(plan))
    assert 500 <= len("".join(sample)) <= 1000
    assert sample == list(writer._sample(plan))
    lines = (tmp_path / "large.jsonl").read_text().splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    train = [t for t in texts if document_hash(t.encode()) > plan.cut]
    assert all(any(t.startswith(part) for t in train) for part in sample)
    assert writer.fit_tokenizer(plan, tmp_path).vocab_size > 257


def test_a_sample_of_parts_has_a_name_of_its_own(tmp_path, monkeypatch):
    plan = writer.make_plan(large(tmp_path, seed=0))
    assert (plan.whole, plan.vocabulary) == (True, 300)
    key = plan.key
    monkeypatch.setattr(writer, "SAMPLE", 10)  # less than any document
    drawn = [writer._drawn(h, plan.share) for h in plan._training("hashes")]
    assert (plan.whole, any(drawn)) == (False, False)
    assert (plan.vocabulary, plan.key == key) == ([300, "parts"], False)


def test_a_trained_tokenizer_is_trained_once(data, tmp_path, monkeypatch):
    plan = writer.make_plan(dataclasses.replace(data, tokenizer="bpe:300"))
    first = writer.fit_tokenizer(plan, tmp_path)
    monkeypatch.setattr(writer, "train_bpe", None)
    assert writer.fit_tokenizer(plan, tmp_path) == first
