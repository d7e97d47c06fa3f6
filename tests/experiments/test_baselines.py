import pytest

from experiments import baselines
from experiments.baselines import main


@pytest.fixture
def quiet(monkeypatch):
    """Nothing is prepared; what would be, is told."""
    prepared = []
    monkeypatch.setattr(
        baselines, "prepare", lambda given, names: prepared.extend(names)
    )
    return prepared


@pytest.mark.parametrize(
    "words",
    [
        ["--seeds", "0"],
        ["--workers", "0"],
        ["--unit", "nan"],
        ["--quick", "clean/nobody"],
        ["--data-dir", "/nowhere", "--runs", "{tmp}"],
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words, tmp_path, capsys):
    words = [word.format(tmp=tmp_path) for word in words]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("baselines: error: ")
    assert said.count("\n") == 1


def test_a_track_alone_still_needs_clean_to_tune_on(
    quiet, tmp_path, monkeypatch, capsys
):
    written = []
    monkeypatch.setattr(baselines, "run_queue", lambda plan, runs: {})
    monkeypatch.setattr(
        baselines, "write_tables", lambda *given: written.append(given) or ["x.json"]
    )
    assert main(["--only", "mixture", "--runs", str(tmp_path), "--unit", "1e9"]) == 0
    assert quiet == ["clean", "mixture"]
    [(plan, _, runs, _, command)] = written
    assert plan.options.tracks == ("mixture",)
    assert plan.options.unit == 1e9
    assert runs == tmp_path
    assert command.startswith("python -m experiments.baselines --only mixture")
    assert "x.json" in capsys.readouterr().out


def test_a_worker_takes_a_core_and_writes_no_table(quiet, tmp_path, monkeypatch):
    pinned = []
    monkeypatch.setattr(baselines, "pin", pinned.append)
    monkeypatch.setattr(baselines, "run_queue", lambda plan, runs: {})
    assert main(["--runs", str(tmp_path), "--workers", "2", "--worker", "1"]) == 0
    assert pinned == [1]
    assert quiet == []


@pytest.mark.parametrize(("close", "code"), [(True, 0), (False, 1)])
def test_quick_compares_with_the_record(quiet, monkeypatch, close, code):
    monkeypatch.setattr(baselines, "recorded", lambda row, results: [])
    monkeypatch.setattr(baselines, "again", lambda row, runs, results: close)
    assert main(["--quick", "clean/b2"]) == code
    assert quiet == ["clean"]
