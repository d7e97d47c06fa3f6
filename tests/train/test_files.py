import math
import sys

import pytest

from uets_jax.errors import UserError
from uets_jax.train.files import held, said_to, told, write_json


def test_json_replaces_the_old_file_in_one_piece(tmp_path):
    path = tmp_path / "summary.json"
    write_json(path, {"a": 1})
    write_json(path, {"a": 2})
    assert path.read_text() == '{\n  "a": 2\n}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_numbers_that_strict_readers_refuse_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "summary.json", {"loss": math.nan})
    assert not (tmp_path / "summary.json").exists()


def test_trouble_with_files_is_one_line_with_the_path(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(UserError, match=r"file/run: Not a directory.*--out"),
        told(tmp_path),
    ):
        (tmp_path / "file" / "run").mkdir()


def test_a_folder_is_held_by_one_run_at_a_time(tmp_path):
    folder = tmp_path / "a" / "run"
    with held(folder):
        assert folder.is_dir()
        with pytest.raises(UserError, match="another process is training there"):
            held(folder).__enter__()
    with held(folder):
        pass
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="Not a directory"):
        held(tmp_path / "file" / "run").__enter__()


def test_what_is_printed_goes_to_the_file_after_what_stands_there(tmp_path, capsys):
    log = tmp_path / "deep" / "log.txt"
    for word in ("one", "two"):
        with said_to(log):
            print(word)
            print(word, file=sys.stderr)
    assert log.read_text() == "one\none\ntwo\ntwo\n"
    assert capsys.readouterr() == ("", "")
