import gzip
import json
import lzma
import tracemalloc

import pytest

from uets_jax.data.faults import Faults
from uets_jax.data.jsonl import read_jsonl
from uets_jax.errors import UserError

BAD = {
    "broken JSON": '{"text": "a"',
    "broken JSON, deep": "[" * 100_000,
    "not an object": '["text"]',
    "no such key": '{"body": "a"}',
    "not a string": '{"text": 3}',
    "lone surrogate": r'{"text": "\ud800"}',
    "NUL byte": r'{"text": "a\u0000"}',
    "empty": '{"text": ""}',
    "not UTF-8": b'{"text": "\xff"}',
}


@pytest.mark.parametrize("case", BAD)
def test_bad_line_is_named_or_counted(tmp_path, case):
    line = BAD[case] if isinstance(BAD[case], bytes) else BAD[case].encode()
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "one"}\n\n' + line + b'\n{"text": "two"}')
    with pytest.raises(UserError, match=f"^{path}, line 3: ") as caught:
        list(read_jsonl(str(path), Faults("error")))
    assert "\n" not in str(caught.value)
    faults = Faults("skip")
    assert list(read_jsonl(str(path), faults)) == ["one", "two"]
    assert faults.counts == {case.split(",")[0]: 1}


def test_key_is_what_stands_after_the_last_colon(tmp_path):
    row = json.dumps({"text": "t", "body": "b"})
    for name in ("a.jsonl", "b:body"):
        (tmp_path / name).write_text(row)
    read = lambda rest: list(read_jsonl(f"{tmp_path}/{rest}", Faults("error")))
    assert read("a.jsonl") == read("a.jsonl:text") == read("a*") == ["t"]
    assert read("a.jsonl:body") == ["b"]
    assert read("b:body") == ["t"]  # there is such a file
    assert read("b:body:body") == ["b"]
    with pytest.raises(UserError, match="matches no file"):
        read("c.jsonl:body")


@pytest.mark.parametrize("key", ["my-key", "a.b", "_x", "9", "clé", "-"])
def test_a_key_may_hold_letters_digits_underscores_dashes_and_dots(tmp_path, key):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "t", key: "b"}))
    assert list(read_jsonl(f"{tmp_path}/a.jsonl:{key}", Faults("error"))) == ["b"]


def test_missing_key_names_the_keys_that_are_there(tmp_path):
    (tmp_path / "a").write_text('{"body": "x", "id": 1}')
    with pytest.raises(UserError, match=r"no key 'text' \(keys: 'body', 'id'\)"):
        list(read_jsonl(f"{tmp_path}/a", Faults("error")))


def test_packed_files_and_byte_order_marks(tmp_path):
    raw = "\n".join(json.dumps({"text": f"é {i}"}) for i in range(100)).encode()
    (tmp_path / "a.gz").write_bytes(gzip.compress(raw))
    (tmp_path / "b.xz").write_bytes(lzma.compress(raw))
    (tmp_path / "c").write_bytes(b"\xef\xbb\xbf" + raw)
    assert list(read_jsonl(f"{tmp_path}/*", Faults("error"))) == [
        f"é {i}" for _ in range(3) for i in range(100)
    ]


def test_what_came_before_the_end_of_a_truncated_file_is_kept(tmp_path):
    rows = [{"text": f"{i} {hash(i) ** 3}"} for i in range(10_000)]
    raw = gzip.compress("\n".join(map(json.dumps, rows)).encode())
    (tmp_path / "a.gz").write_bytes(raw[: len(raw) // 2])
    faults = Faults("skip")
    assert 100 < len(list(read_jsonl(f"{tmp_path}/a.gz", faults))) < 9000
    assert faults.counts == {"truncated": 1}


def test_a_line_of_100_megabytes_is_skipped_in_bounded_memory(tmp_path):
    path = tmp_path / "a.jsonl"
    with open(path, "wb") as stream:
        stream.write(b'{"text": "before"}\n{"text": "')
        for _ in range(100):
            stream.write(b"x" * 2**20)
        stream.write(b'"}\n{"text": "after"}\n')
    with pytest.raises(UserError, match="line 2: is longer than 16 MB"):
        list(read_jsonl(str(path), Faults("error")))
    faults = Faults("skip")
    tracemalloc.start()
    assert list(read_jsonl(str(path), faults)) == ["before", "after"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert faults.counts == {"line too long": 1}
    assert peak < 40 * 2**20
