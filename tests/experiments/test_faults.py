import pytest

from experiments import faults
from experiments.fault_checks import Failure
from experiments.faults import FAULTS, TABLE, Fault, main
from experiments.records import read_record


@pytest.fixture
def calls(monkeypatch):
    """Faults that only count, the second of which fails once."""
    calls = []

    def fault(name, failures):
        def act(bench, trials):
            calls.append((name, trials, bench.seed))
            return {"fault": name, "trials": trials, "failures": failures, name: 1}

        return Fault(act, 7)

    stubs = {"kill9": fault("kill9", 0), "damage": fault("damage", 1)}
    monkeypatch.setattr(faults, "FAULTS", stubs)
    return calls


def test_the_default_numbers_are_those_of_the_record():
    assert {name: fault.trials for name, fault in FAULTS.items()} == {
        "kill9": 20,
        "sigterm": 20,
        "kill_in_save": 60,
        "damage": 300,
        "disk_full": 20,
        "devices": 12,
    }


def test_all_faults_are_done_and_a_failure_is_the_exit_code(calls, tmp_path, capsys):
    assert main(["--out", str(tmp_path), "--seed", "3"]) == 1
    assert calls == [("kill9", 7, 3), ("damage", 7, 3)]
    rows = read_record(TABLE, tmp_path)["rows"]
    assert [(r["fault"], r["trials"], r["failures"]) for r in rows] == [
        ("kill9", 7, 0),
        ("damage", 7, 1),
    ]
    assert all(r["seed"] == 3 and r["date"] and "commit" in r for r in rows)
    assert capsys.readouterr().out.count("foundation.faults.json: ") == 2


def test_a_row_replaces_that_of_its_fault_and_keeps_the_others(calls, tmp_path):
    out = ["--out", str(tmp_path)]
    assert main(["--only", "damage", "--trials", "2", *out]) == 1
    assert main(["--only", "kill9", "--trials", "5", *out]) == 0
    assert main(["--only", "kill9", "--trials", "6", "--seed", "1", *out]) == 0
    rows = read_record(TABLE, tmp_path)["rows"]
    assert [(r["fault"], r["trials"], r["seed"]) for r in rows] == [
        ("kill9", 6, 1),
        ("damage", 2, 0),
    ]


def test_a_fault_without_a_run_to_do_it_to_is_told_in_one_line(
    monkeypatch, tmp_path, capsys
):
    def act(bench, trials):
        raise Failure("exit code 1 of a run that should end")

    monkeypatch.setattr(faults, "FAULTS", {"damage": Fault(act, 7)})
    assert main(["--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("faults: error: damage: no trial was made: exit code 1")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_unknown_fault_is_refused(calls, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["--only", "flood", "--out", str(tmp_path)])
    assert end.value.code == 2
    assert "flood" in capsys.readouterr().err
    assert not calls
