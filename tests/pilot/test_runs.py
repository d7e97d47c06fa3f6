import json

import pytest

from uets_jax.config import replace_from_dict
from uets_jax.errors import UserError
from uets_jax.pilot.runs import carry_out, speed, training_flops


def test_a_run_is_made_once(given, planted, tmp_path):
    record, new = carry_out("a", given, "corpus", tmp_path)
    assert new
    assert record["bits_per_byte"] == 3.0
    assert training_flops(record) == 1000 * 10**6
    assert speed(record) == pytest.approx(1e8)
    again, new = carry_out("a", given, "corpus", tmp_path)
    assert not new
    assert again == record
    [(folder, resume)] = planted.calls
    assert not resume
    assert not (folder / "checkpoints").exists()
    assert "what a run says" in (tmp_path / "log.txt").read_text()


def test_another_config_or_text_is_another_run(given, planted, tmp_path):
    other = replace_from_dict(given, {"train": {"seed": 9}})
    for config, corpus in ((given, "a"), (other, "a"), (given, "b"), (given, "a")):
        carry_out("same", config, corpus, tmp_path)
    assert len(planted.calls) == len({folder for folder, _ in planted.calls}) == 3


def test_a_run_that_was_stopped_goes_on(given, planted, tmp_path, monkeypatch):
    carry_out("a", given, "corpus", tmp_path)
    [record] = tmp_path.glob("a-*.json")
    record.unlink()
    [(folder, _)] = planted.calls
    (folder / "config.json").write_text("{}")
    carry_out("a", given, "corpus", tmp_path)
    assert planted.calls[1] == (folder, True)


def test_a_run_that_diverges_is_a_result_and_costs_what_it_did(
    given, planted, tmp_path
):
    planted.law = lambda config: None
    for _ in range(2):
        record, _ = carry_out("a", given, "corpus", tmp_path)
    assert record["bits_per_byte"] is None
    assert "loss is nan" in record["why"]
    assert training_flops(record) == 7
    assert len(planted.calls) == 1


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"bits_per_byte": 1}', "{"])
def test_a_broken_record_is_named(given, planted, tmp_path, text):
    carry_out("a", given, "corpus", tmp_path)
    [path] = tmp_path.glob("a-*.json")
    assert json.loads(path.read_text())["name"] == "a"
    path.write_text(text)
    with pytest.raises(UserError, match=r"a-.*\.json: no record"):
        carry_out("a", given, "corpus", tmp_path)
