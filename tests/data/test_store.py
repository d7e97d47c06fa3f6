import dataclasses
import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uets_jax.config import DataConfig
from uets_jax.data import store as stores
from uets_jax.data.loading import load
from uets_jax.data.store import open_store, prepare, verify, write_store
from uets_jax.data.windows import sequential
from uets_jax.errors import UserError

TEXTS = [f"document {i} says é {'word ' * (i % 7)}\n" for i in range(60)]


@pytest.fixture
def data(tmp_path) -> DataConfig:
    rows = "\n".join(json.dumps({"text": text}) for text in TEXTS)
    (tmp_path / "a.jsonl").write_text(rows)
    return DataConfig(
        source=f"jsonl:{tmp_path}/a.jsonl",
        valid_fraction=0.1,
        tokenizer="bytes",
        cache=str(tmp_path / "cache"),
    )


def documents_of(store, split: str) -> list[str]:
    ids, eot = store.tokens(split), store.tokenizer.eot
    assert ids[0] == eot
    parts = np.split(ids, np.flatnonzero(ids == eot)[1:])
    return [store.tokenizer.decode(part) for part in parts]


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe:300"])
def test_all_documents_come_back_in_order(data, tokenizer):
    store = prepare(dataclasses.replace(data, tokenizer=tokenizer))
    train, valid = documents_of(store, "train"), documents_of(store, "valid")
    assert sorted(train + valid) == sorted(TEXTS)
    assert train == [text for text in TEXTS if text in set(train)]
    for split, texts in (("train", train), ("valid", valid)):
        facts = store.meta["splits"][split]
        assert facts["documents"] == len(texts)
        assert facts["bytes"] == len("".join(texts).encode())
        assert facts["tokens"] == len(store.tokens(split))
        sizes = store.tokenizer.token_bytes[store.tokens(split)]
        assert sizes.sum() == facts["bytes"]
    assert store.meta["source"] == data.source
    assert store.meta["skipped"] == {}
    verify(store)


def test_bytes_that_evaluation_counts_are_the_bytes_of_the_text(data):
    store = prepare(data)
    batches = sequential(store.tokens("valid"), store.tokenizer.eot, 32, 4)
    targets = np.concatenate([batch.targets.ravel() for batch in batches])
    counted = store.tokenizer.token_bytes[targets[targets >= 0]].sum()
    assert counted == store.meta["splits"]["valid"]["bytes"]


def test_the_second_time_nothing_is_trained_or_written(data, monkeypatch):
    data = dataclasses.replace(data, tokenizer="bpe:300")
    first = prepare(data)
    monkeypatch.setattr(stores, "fit_tokenizer", None)
    monkeypatch.setattr(stores, "write", None)
    start = time.monotonic()
    second = prepare(data)
    assert time.monotonic() - start < 1
    assert second == first


def test_a_store_that_was_thrown_away_comes_back_the_same(data):
    data = dataclasses.replace(data, tokenizer="bpe:300")
    first = prepare(data)
    want = first.fingerprint, first.meta
    shutil.rmtree(data.cache)
    again = prepare(data)
    assert (again.fingerprint, again.meta) == want


def test_equal_content_has_an_equal_fingerprint(data, tmp_path):
    (tmp_path / "files").mkdir()
    for i, text in enumerate(TEXTS):
        (tmp_path / "files" / f"{i:03}").write_text(text)
    other = dataclasses.replace(data, source=f"files:{tmp_path}/files/*")
    written = write_store(tmp_path / "own", other)
    store = prepare(data)
    assert written.fingerprint == store.fingerprint
    assert written.directory == str(tmp_path / "own")
    assert prepare(DataConfig(source=f"tokens:{tmp_path}/own")) == written
    assert load(str(tmp_path / "own")) == store.tokenizer
    changed = dataclasses.replace(data, valid_fraction=0.3)
    assert prepare(changed).fingerprint != store.fingerprint


@given(st.lists(st.text("ab \n", min_size=1), min_size=2, max_size=12, unique=True))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_duplicates_stay_on_one_side(data, tmp_path, texts):
    rows = [json.dumps({"text": text}) for text in texts * 2]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    store = prepare(data)
    train, valid = (documents_of(store, split) for split in ("train", "valid"))
    assert train
    assert valid
    assert not set(train) & set(valid)
    assert sorted(train + valid) == sorted(texts * 2)


def test_a_validation_source_keeps_the_source_whole(data, tmp_path):
    (tmp_path / "valid.txt").write_text("held out")
    (tmp_path / "train.txt").write_text("one document")
    alone = dataclasses.replace(data, source=f"files:{tmp_path}/train.txt")
    with pytest.raises(UserError, match=r"--data\.valid-source"):
        prepare(alone)
    both = dataclasses.replace(alone, valid_source=f"files:{tmp_path}/valid.txt")
    store = prepare(both)
    assert documents_of(store, "train") == ["one document"]
    assert documents_of(store, "valid") == ["held out"]
    assert store.meta["valid_source_sha256"] != store.meta["source_sha256"]


def test_skipped_documents_are_on_record(data, tmp_path):
    with open(tmp_path / "a.jsonl", "a") as stream:
        stream.write("\n{}\n[]\n{}\n")
    with pytest.raises(UserError, match="line 61: no key 'text'"):
        prepare(data)
    store = prepare(dataclasses.replace(data, on_error="skip"))
    assert store.meta["skipped"] == {"no such key": 2, "not an object": 1}


def test_text_that_spells_the_separator_does_not_separate(data, tmp_path):
    rows = [json.dumps({"text": f"{i} <|endoftext|> {i}"}) for i in range(9)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    store = prepare(dataclasses.replace(data, tokenizer="bpe:270"))
    found = documents_of(store, "train") + documents_of(store, "valid")
    assert len(found) == 9


def test_two_processes_may_prepare_at_once(data, tmp_path):
    code = f"""
from uets_jax.config import DataConfig
from uets_jax.data.store import prepare, verify
store = prepare({data!r})
verify(store)
print(store.fingerprint)
"""
    start = lambda: subprocess.Popen([sys.executable, "-c", code], stdout=-1, text=True)
    prints = {process.communicate()[0] for process in [start(), start(), start()]}
    assert prints == {prepare(data).fingerprint + "\n"}
    assert len(list((tmp_path / "cache" / "stores").iterdir())) == 1


def test_a_store_is_written_into_a_new_folder_only(data, tmp_path):
    (tmp_path / "empty").mkdir()
    assert write_store(str(tmp_path / "empty"), data).meta["version"] == 1
    for used in ("empty", "a.jsonl"):
        with pytest.raises(UserError, match="holds something already"):
            write_store(tmp_path / used, data)
    with pytest.raises(UserError, match="already tokenized"):
        write_store(tmp_path / "b", DataConfig(source=f"tokens:{tmp_path}/empty"))
    with pytest.raises(UserError, match="its own validation text"):
        prepare(DataConfig(source=f"tokens:{tmp_path}/empty", valid_source="builtin"))


def test_a_failed_write_leaves_nothing_behind(data, tmp_path, monkeypatch):
    monkeypatch.setattr(
        stores, "write", lambda *a: (_ for _ in ()).throw(OSError(28, "full"))
    )
    with pytest.raises(UserError, match=r"can't be written \(full\)"):
        prepare(data)
    assert list((tmp_path / "cache" / "stores").iterdir()) == []


def spoil_meta(folder, **changes):
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | changes))


BROKEN = {
    "gone": (shutil.rmtree, "can't be read"),
    "no meta": (lambda f: (f / "meta.json").unlink(), r"meta\.json: can't be read"),
    "meta cut": (lambda f: (f / "meta.json").write_text("{"), "not of a token store"),
    "meta odd": (lambda f: (f / "meta.json").write_text("[]"), "not of a token store"),
    "other format": (lambda f: spoil_meta(f, format="x"), "not of a token store"),
    "bare": (
        lambda f: (f / "meta.json").write_text('{"format": "uets_jax tokens"}'),
        "not of a token store",
    ),
    "no splits": (lambda f: spoil_meta(f, splits={}), "not of a token store"),
    "odd dtype": (lambda f: spoil_meta(f, dtype="f4"), "not of a token store"),
    "new version": (lambda f: spoil_meta(f, version=2), "this program reads 1"),
    "bin cut": (lambda f: (f / "train.bin").write_bytes(b"ab"), r"train\.bin: 2 bytes"),
    "bin gone": (lambda f: (f / "valid.bin").unlink(), r"valid\.bin: 0 bytes"),
    "tokenizer": (
        lambda f: (f / "tokenizer.json").unlink(),
        r"tokenizer\.json: can't be read",
    ),
    "other tokenizer": (
        lambda f: spoil_meta(f, tokenizer_sha256="0"),
        "not the tokenizer of this store",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_store_is_not_opened(data, tmp_path, case):
    write_store(tmp_path / "own", data)
    spoil, message = BROKEN[case]
    spoil(tmp_path / "own")
    with pytest.raises(UserError, match=message) as caught:
        open_store(tmp_path / "own")
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_is_found(data, tmp_path):
    store = write_store(tmp_path / "own", data)
    raw = bytearray((tmp_path / "own" / "train.bin").read_bytes())
    raw[100] ^= 1
    (tmp_path / "own" / "train.bin").write_bytes(raw)
    with pytest.raises(UserError, match=r"train\.bin: damaged"):
        verify(store)


def test_there_are_two_splits(data):
    with pytest.raises(UserError, match="did you mean 'train'"):
        prepare(data).tokens("trian")


def test_builtin_text_needs_no_setting():
    store = prepare(DataConfig(tokenizer="bytes"))
    train, valid = (store.meta["splits"][split] for split in ("train", "valid"))
    assert train["bytes"] + valid["bytes"] > 6_000_000
    assert valid["bytes"] / (train["bytes"] + valid["bytes"]) == pytest.approx(
        0.02, abs=0.008
    )
    assert store.tokens("train").dtype == np.uint16
