import json
import lzma

import pytest

from uets_jax.data.labelled import inputs, read
from uets_jax.data.supply import Document
from uets_jax.errors import UserError

ROW = {"id": "a", "domain": "x", "text": "Größe"}


def write(path, *rows):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return str(path)


def test_files_are_found_also_one_folder_down(tmp_path):
    inner = tmp_path / "multidomain"
    inner.mkdir()
    for name in ("train-01.jsonl.xz", "train-00.jsonl", "valid.jsonl", "stats.json"):
        (inner / name).touch()
    wanted = [str(inner / f"train-{n}") for n in ("00.jsonl", "01.jsonl.xz")]
    assert inputs(tmp_path) == inputs(inner) == (wanted, [str(inner / "valid.jsonl")])


def test_a_part_that_is_missing_is_named(tmp_path):
    (tmp_path / "train.jsonl").touch()
    with pytest.raises(UserError, match=r"valid\*"):
        inputs(tmp_path)


def test_documents_are_read_plain_and_packed(tmp_path):
    full = {**ROW, "id": "b", "source": "s", "work": "w", "lang": "de"}
    plain = write(tmp_path / "train.jsonl", ROW, "", full)
    packed = tmp_path / "train.jsonl.xz"
    packed.write_bytes(lzma.compress(json.dumps({**ROW, "source": None}).encode()))
    assert list(read([plain, str(packed)])) == [
        Document("a", "x", "Größe"),
        Document("b", "x", "Größe", "s", "w"),
        Document("a", "x", "Größe"),
    ]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "broken JSON"),
        ("[1]", "needs texts as id, domain and text"),
        ({"id": "a", "text": "x"}, "needs texts"),
        ({**ROW, "id": 7}, "needs texts"),
        ({**ROW, "text": ""}, "empty"),
        ({**ROW, "text": "\0"}, "NUL"),
    ],
)
def test_a_line_that_is_no_document_is_named(tmp_path, line, complaint):
    path = write(tmp_path / "train.jsonl", ROW, line)
    with pytest.raises(UserError, match=rf"train.jsonl, line 2: .*{complaint}"):
        list(read([path]))
