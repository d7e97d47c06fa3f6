import pytest

from uets_jax.errors import UserError
from uets_jax.slots.dataset import source_of


def test_a_dataset_is_a_source_or_a_path(tmp_path):
    assert source_of("builtin") == "builtin"
    assert source_of("hf:roneneldan/TinyStories") == "hf:roneneldan/TinyStories"
    text, lines = tmp_path / "a.txt", tmp_path / "b.jsonl.xz"
    text.write_text("a")
    lines.write_text("b")
    assert source_of(text) == f"files:{text}"
    assert source_of(str(lines)) == f"jsonl:{lines}"
    assert source_of(tmp_path) == f"files:{tmp_path}/**"
    (tmp_path / "meta.json").write_text("{}")
    assert source_of(tmp_path) == f"tokens:{tmp_path}"
    with pytest.raises(UserError, match="dataset: 'absent'"):
        source_of("absent")
