import dataclasses
import json
import shutil

import pytest

from uets_jax.config import replace_from_dict
from uets_jax.errors import UserError
from uets_jax.measure.ledger import Ledger
from uets_jax.train import start
from uets_jax.train.checkpoint import steps
from uets_jax.train.loop import train
from uets_jax.train.session import open_session


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """The folder of a run of 8 steps with checkpoints 4 and 8."""
    out = tmp_path_factory.mktemp("start") / "run"
    train(config, out)
    return out


@pytest.fixture
def out(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def session(config):
    return open_session(config)


def test_a_fresh_run_is_at_step_0_and_has_spent_nothing(session, tmp_path):
    run = start.begin(session, tmp_path / "run", False, Ledger(), [])
    with run.open():
        assert run.at == start.Position()
        assert run.ledger.costs == {}
        assert run.saved == -1
        assert not run.described


def test_a_resumed_run_is_where_its_newest_checkpoint_was(session, out):
    ledger = Ledger()
    run = start.begin(session, out, True, ledger, [])
    with run.open():
        assert run.at.step == run.saved == int(run.state.step) == 8
        assert run.at.counts["resumes"] == 1
    stored = json.loads((out / "checkpoints/00000008/record.json").read_text())
    assert ledger.to_dict()["flops"] == stored["ledger"]["flops"]
    assert ledger.tokens == 8 * 8 * 32


def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(session, out):
    (out / "checkpoints/00000008/record.json").write_text("{}")
    same = start.Same(session, [], (), [])
    state, record, notes = start.restore(same, out / "checkpoints")
    assert state is not None
    assert (int(state.step), record["step"]) == (4, 4)
    assert "left out a damaged checkpoint" in notes[0]
    assert notes[-1] == "resumed at step 4"
    assert steps(out / "checkpoints") == [4]
    assert (out / "checkpoints/00000008.damaged").is_dir()


def test_a_checkpoint_of_another_tokenizer_is_refused_by_name(session, out):
    record = json.loads((out / "checkpoints/00000008/record.json").read_text())
    other = {**record, "tokenizer_sha256": "0" * 64}
    with pytest.raises(
        UserError, match=r"another tokenizer .* --allow data\.tokenizer"
    ):
        start.Same(session, [], (), []).check(out, other)
    changed: list[str] = []
    start.Same(session, [], ("data",), changed).check(out, other)
    assert changed == [
        f"another tokenizer than before: {'0' * 12}, now "
        f"{session.store.tokenizer.hash[:12]}"
    ]


def test_processes_but_the_first_are_silent(session, tmp_path, monkeypatch, capsys):
    named = replace_from_dict(session.config, {"train": {"trackers": "no-such"}})
    other = dataclasses.replace(session, config=named)
    monkeypatch.setattr(start, "is_main", lambda: False)
    progress = start.progress_of(other, 0)
    progress.note("said")
    progress.update(8, 1.0, 10)
    start.trackers_of(other, tmp_path, progress).write({"step": 1})
    assert capsys.readouterr().err == ""
    monkeypatch.undo()
    with pytest.raises(UserError, match="no tracker 'no-such'"):
        start.trackers_of(other, tmp_path, progress)
