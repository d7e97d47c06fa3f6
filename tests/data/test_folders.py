import contextlib
import os
from pathlib import Path

import pytest

from uets_jax.data.folders import cache_folder, fresh_file, fresh_folder
from uets_jax.errors import UserError


def test_the_cache_is_what_was_asked_for_first(tmp_path, monkeypatch):
    monkeypatch.setenv("UETS_CACHE", str(tmp_path / "env"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder(str(tmp_path / "arg"), "stores") == tmp_path / "arg/stores"
    assert cache_folder("", "stores") == tmp_path / "env/stores"
    monkeypatch.delenv("UETS_CACHE")
    assert cache_folder("", "stores") == tmp_path / "xdg/uets_jax/stores"
    assert (tmp_path / "xdg/uets_jax/stores").is_dir()


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "store"
    with contextlib.suppress(KeyError), fresh_folder(path) as folder:
        (folder / "half").write_text("x")
        raise KeyError
    assert list((tmp_path / "deep").iterdir()) == []
    with fresh_folder(path) as folder:
        (folder / "whole").write_text("x")
        assert not path.exists()
    assert [p.name for p in path.iterdir()] == ["whole"]


def test_of_two_writers_the_first_wins(tmp_path):
    path = tmp_path / "store"
    with fresh_folder(path) as slow:
        (slow / "a").write_text("slow")
        with fresh_folder(path) as fast:
            (fast / "a").write_text("fast")
    assert (path / "a").read_text() == "fast"
    assert os.listdir(tmp_path) == ["store"]


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    with contextlib.suppress(KeyError), fresh_file(tmp_path / "a") as stream:
        stream.write("x")
        raise KeyError
    assert os.listdir(tmp_path) == []
    with fresh_file(tmp_path / "a") as stream:
        stream.write("x")
    assert os.listdir(tmp_path) == ["a"]


def test_what_can_not_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    inside: Path = tmp_path / "file" / "store"
    with pytest.raises(UserError, match="can't be written"):
        cache_folder(str(tmp_path / "file"), "stores")
    with pytest.raises(UserError, match="can't be written"), fresh_folder(inside):
        pass
    with pytest.raises(UserError, match="can't be written"), fresh_file(inside):
        pass
