"""Folders on this machine; tests/data/test_hub.py has a stand-in for the Hub."""

import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uets_jax.data.corpus import check, documents
from uets_jax.data.faults import OnError
from uets_jax.data.hf import Spec, parse
from uets_jax.errors import UserError

POLICIES: tuple[OnError, ...] = ("error", "skip")
README = """---
configs:
- config_name: en
  data_files:
  - split: train
    path: en/train*
  - split: test
    path: en/test*
- config_name: de
  data_files: de/*
---
"""


def parquet(path, **columns) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def json_lines(path, *rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)))


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    folder = str(tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", folder)


@pytest.fixture
def folder(tmp_path):
    """Two configs, by the README: `en` in two shards and a test split, and `de`."""
    numbers = list(range(4))
    parquet(tmp_path / "en/train-0.parquet", text=list("abcd"), n=numbers)
    parquet(tmp_path / "en/train-1.parquet", text=list("efgh"), n=numbers)
    parquet(tmp_path / "en/test.parquet", text=["t"], n=[0])
    parquet(tmp_path / "de/x.parquet", body=["ä 0", "ä 1", "ä 2"], n=numbers[:3])
    (tmp_path / "README.md").write_text(README)
    return tmp_path


def read(spec, on_error: OnError = "error"):
    return list(documents(f"hf:{spec}", on_error))


def test_a_folder_is_read_in_order_by_config_and_split(folder):
    reader = documents(f"hf:{folder}:en")
    assert list(reader) == list(reader) == list("abcdefgh")
    assert read(f"{folder}:en:test") == ["t"]
    assert read(f"{folder}:de:train") == ["ä 0", "ä 1", "ä 2"]


def test_splits_by_file_names(tmp_path, monkeypatch):
    json_lines(tmp_path / "d/train.jsonl", {"text": "a"}, {"text": "b"})
    (tmp_path / "d/test.txt").write_text("one\ntwo\n")
    with pytest.raises(UserError, match="can't be"):
        read(f"{tmp_path}/d")  # of two formats
    (tmp_path / "d/test.txt").unlink()
    json_lines(tmp_path / "d/test.jsonl", {"text": "t"})
    monkeypatch.chdir(tmp_path)
    assert read("d") == read("./d::train") == ["a", "b"]
    assert read("d::test") == read(f"{tmp_path}/d:default:test") == ["t"]
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.txt").write_text("one\ntwo\n")
    assert read("text") == ["one", "two"]  # not the loader called "text"


def test_bad_rows_are_named_or_counted(tmp_path):
    text = ["good", None, "", "a\0b", "fine"]
    parquet(tmp_path / "a.parquet", text=text)
    with pytest.raises(UserError, match=rf"hf:{tmp_path}, row 1: the text is null"):
        read(tmp_path)
    reader = documents(f"hf:{tmp_path}", "skip")
    assert list(reader) == ["good", "fine"]
    assert reader.skipped == {"NUL byte": 1, "empty": 1, "not a string": 1}


def test_a_number_among_texts_is_a_bad_row(tmp_path):
    json_lines(tmp_path / "a.jsonl", {"text": "a"}, {"text": 3}, {"text": "b"})
    with pytest.raises(UserError, match="row 1: the text is a int, not a string"):
        read(tmp_path)
    assert read(tmp_path, "skip") == ["a", "b"]


def test_the_only_text_column_is_taken_and_two_are_not(tmp_path):
    parquet(tmp_path / "one/a.parquet", n=[1], content=["c"])
    parquet(tmp_path / "two/a.parquet", a=["x"], b=["y"], n=[1])
    parquet(tmp_path / "none/a.parquet", n=[1])
    assert read(tmp_path / "one") == ["c"]
    for on_error in POLICIES:
        with pytest.raises(UserError, match=r"2 text columns.*\(columns: a, b, n\)"):
            read(tmp_path / "two", on_error)
    with pytest.raises(UserError, match=r"0 text columns, none of them 'text'"):
        read(tmp_path / "none")


def test_no_usable_row_at_all_is_told(tmp_path):
    parquet(tmp_path / "a.parquet", text=pa.array([None, None], pa.string()))
    with pytest.raises(UserError, match=r"no usable document \(2 not a string\)"):
        read(tmp_path, "skip")


def test_a_broken_file_ends_the_reading_under_both_policies(tmp_path, caplog):
    (tmp_path / "j").mkdir()
    (tmp_path / "j/a.jsonl").write_text('{"text": "a"}\n{"text": "b"\n')
    parquet(tmp_path / "p/a.parquet", text=["a"])
    (tmp_path / "p/b.parquet").write_bytes(b"PAR1 broken")
    for on_error in POLICIES:
        for name, count in (("j", 0), ("p", 1)):
            with pytest.raises(
                UserError, match=f"read on after {count} rows"
            ) as caught:
                read(tmp_path / name, on_error)
            assert "\n" not in str(caught.value)
    assert str(tmp_path / "p/b.parquet") in caplog.text


WRONG = {
    ":en:train:0": r"write hf:REPO\[:CONFIG\[:SPLIT\]\]",
    "/README.md": ".* is a file; give its folder",
    "/nowhere": "no folder .*/nowhere; check the path",
}


@pytest.mark.parametrize("rest", WRONG)
def test_what_is_no_folder_is_told_in_one_line(folder, rest):
    with pytest.raises(UserError, match=f"^hf:{folder}{rest}: {WRONG[rest]}") as caught:
        read(f"{folder}{rest}", "skip")
    assert "\n" not in str(caught.value)


def test_specs_are_taken_apart(tmp_path, monkeypatch):
    assert parse("u/s") == Spec("u/s", "", "train")
    assert parse("u/s:en") == Spec("u/s", "en", "train")
    assert parse("squad::test") == Spec("squad", "", "test")
    assert parse(f"{tmp_path}:c:s") == Spec(str(tmp_path), "c", "s")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse("~") == Spec(str(tmp_path), "", "train")
    for bad in ("", ":en", "a/b/c", "a b", "../s", "u/s?x=1", "u/é"):
        with pytest.raises(UserError, match=r"no folder|OWNER/NAME"):
            parse(bad)


def test_a_look_at_a_spec_asks_nobody(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    check(f"hf:{tmp_path}:en")
    check("hf:user/name")
    with pytest.raises(UserError, match="no folder"):
        check(f"hf:{tmp_path}/nowhere")
