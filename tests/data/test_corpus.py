import subprocess
import sys

import pytest

from uets_jax.data.corpus import check, documents
from uets_jax.errors import UserError

BAD = {
    "jsnl:a": "did you mean 'jsonl'",
    "/a/b.txt": "choose from builtin",
    "": "unknown source ''",
    "files:": "write files:",
    "builtin:x": "takes nothing after it",
    "tokens:a": "already tokenized",
    "hf:": "write hf:",
    "fh:a/b": "did you mean 'hf'",
}


@pytest.mark.parametrize("spec", BAD)
def test_bad_spec_fails_at_once_under_both_policies(spec):
    for on_error in ("error", "skip"):
        with pytest.raises(UserError, match=BAD[spec]):
            documents(spec, on_error)


def test_a_look_at_a_spec_finds_what_is_not_there_and_reads_nothing(tmp_path):
    (tmp_path / "a").write_bytes(b"\xff")
    there = (f"files:{tmp_path}/*", f"jsonl:{tmp_path}/a:body", f"hf:{tmp_path}:en")
    for spec in ("builtin", *there, "hf:user/name"):
        check(spec)
    with pytest.raises(UserError, match="no folder /absent"):
        check("hf:/absent:en")
    for spec in ("files:/absent/*", "jsonl:/absent:body"):
        with pytest.raises(UserError, match="matches no file"):
            check(spec)
    for spec, culprit in BAD.items():
        with pytest.raises(UserError, match=culprit):
            check(spec)


def test_reads_again_from_the_start_and_counts_afresh(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "b").write_text("text")
    reader = documents(f"files:{tmp_path}/*", "skip")
    assert reader.skipped == {}
    for _ in range(2):
        assert list(reader) == ["text"]
        assert reader.skipped == {"empty": 1}


def test_nothing_usable_is_an_error_that_says_why(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": ""}\n{"tex": "a"}\n{}')
    reader = documents(f"jsonl:{tmp_path}/*", "skip")
    with pytest.raises(UserError, match=r"no usable document \(1 empty, 2 no such key"):
        list(reader)


def test_reading_text_does_not_import_jax_nor_the_optional_packages():
    code = """
import sys, uets_jax.data.store
next(iter(uets_jax.data.corpus.documents("builtin")))
heavy = {"jax", "grain", "tokenizers", "tensorflow_datasets", "tqdm", "datasets"}
heavy |= {"huggingface_hub", "zstandard"}
print(sorted(heavy & set(sys.modules)))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
