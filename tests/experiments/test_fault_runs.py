import json
import subprocess
import sys
import time

import pytest

from experiments import fault_runs
from experiments.fault_checks import Failure
from experiments.fault_runs import (
    Bench,
    complete,
    ended,
    log,
    repeat,
    said,
    start,
    steps_shown,
    total,
    wait,
    worst,
)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path, tmp_path / "cache", patience=0.2)


@pytest.fixture
def sleeper():
    """A process that does nothing for a minute."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def words(monkeypatch):
    """The command lines that would be started, and their environments."""
    calls = []
    real = subprocess.Popen

    def popen(command, **how):
        calls.append((command, how["env"]))
        return real([sys.executable, "-c", "raise SystemExit('bad end')"], **how)

    monkeypatch.setattr(fault_runs.subprocess, "Popen", popen)
    return calls


def test_a_run_is_begun_and_then_gone_on_with_as_a_user_would(bench, words, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Failure, match=r"exit code 1 .*: bad end"):
        complete(Bench(tmp_path, tmp_path / "cache"), out, ("--train.seed=3",))
    command, environment = words[0]
    assert command[1:5] == ["-m", "uets_jax", "train", "--recipe=tiny"]
    assert command[-3:] == ["--train.seed=3", "--out", str(out)]
    assert environment["UETS_CACHE"] == str(tmp_path / "cache")
    out.mkdir()
    (out / "config.json").write_text("{}")
    start(bench, out, devices=4).wait()
    command, environment = words[1]
    assert command[3:] == ["train", "--resume", str(out)]
    assert environment["JAX_NUM_CPU_DEVICES"] == "4"


def test_a_process_that_hangs_is_killed_and_told_of(bench, sleeper, tmp_path):
    with pytest.raises(Failure, match="hung"):
        ended(bench, sleeper)
    assert sleeper.poll() is not None


def test_a_condition_is_waited_for(bench, sleeper, tmp_path):
    began = time.monotonic()
    wait(sleeper, tmp_path / "run", lambda: time.monotonic() > began + 0.05, 5.0)
    assert 0.05 < time.monotonic() - began < 5
    log(tmp_path / "run").write_text("step 1/2\nlast words\n\n")
    with pytest.raises(Failure, match=r"without progress: last words"):
        wait(sleeper, tmp_path / "run", lambda: False, 0.05)
    sleeper.wait()
    with pytest.raises(Failure, match=r"ended with exit code -9: last words"):
        wait(sleeper, tmp_path / "run", lambda: False, 5.0)


def test_the_log_tells_of_steps(tmp_path):
    out = tmp_path / "run"
    first = "step 1/9  loss 2.0\nstep 1: validation loss 3\n"
    log(out).write_text(first + "step 2/9  loss 1.0\nresumed at step 7\n")
    assert steps_shown(out) == [1, 2]
    assert steps_shown(out, len(first)) == [2]
    assert said(out) == "resumed at step 7"
    log(out).write_text("")
    assert said(out) == "nothing was said"


def test_trials_are_counted_and_failed_ones_kept(bench, capsys):
    numbers = []

    def trial(out, rng):
        out.mkdir(parents=True)
        numbers.append(float(rng.uniform()))
        if out.name == "001":
            raise Failure("lost a step")
        if out.name == "002":
            raise KeyError("x")
        return {"a": len(numbers)}

    row, facts = repeat(bench, "some", 4, trial)
    assert (row["fault"], row["trials"], row["failures"]) == ("some", 4, 2)
    assert facts == [{"a": 1}, {"a": 4}]
    assert (total(facts, "a"), worst(facts, "a"), worst([], "a")) == (5, 4, None)
    kept = sorted(p.name for p in (bench.folder / "some").iterdir())
    assert kept == ["001", "002"]
    error = capsys.readouterr().err
    assert "some: trial 1: lost a step" in error
    assert "some: trial 2: KeyError('x')" in error
    json.dumps(row)
    again, before = [], list(numbers)
    repeat(bench, "some", 2, lambda out, rng: again.append(float(rng.uniform())) or {})
    assert again == before[:2]
    assert len({*before}) == 4
