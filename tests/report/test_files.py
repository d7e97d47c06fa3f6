"""A file of the report is whole or not there."""

import pytest

from uets_jax.errors import UserError
from uets_jax.report.files import replace_text


def test_the_folder_is_made_and_nothing_else_is_left(tmp_path):
    out = tmp_path / "a" / "b" / "r.html"
    for text in ("é", "second"):
        assert replace_text(out, text) == out
        assert out.read_bytes() == text.encode()
    assert [p.name for p in out.parent.iterdir()] == ["r.html"]


def test_what_cannot_be_written_is_named(tmp_path):
    with pytest.raises(UserError, match="Is a directory: can't write the report"):
        replace_text(tmp_path, "x")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"r\.html: .*can't write the report"):
        replace_text(tmp_path / "file" / "r.html", "x")
    assert [p.name for p in tmp_path.parent.glob("*.tmp")] == []
