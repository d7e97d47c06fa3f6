import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import fault_signals
from experiments.fault_checks import Failure
from experiments.fault_runs import Bench, log
from experiments.fault_signals import check_went_on, in_time, kill9, sigterm


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "faults"
    return Bench(folder, Path(os.environ["UETS_CACHE"], "faults"), steps=40, every=10)


@pytest.mark.slow
def test_a_killed_run_ends_as_if_nothing_had_happened(bench):
    row = kill9(bench, 1)
    assert row["failures"] == 0
    assert row["kills"] >= 1
    assert 0 <= row["steps_lost"] <= 40


@pytest.mark.slow
def test_a_stopped_run_saves_at_once_and_goes_on(bench):
    row = sigterm(bench, 1)
    assert row["failures"] == 0
    assert 0 < row["exit_seconds"] < 60


def test_a_process_that_dies_of_sigterm_is_a_failure(bench, tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    log(tmp_path).write_text("step 3/40\n")
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr(fault_signals, "start", lambda *_: subprocess.Popen(sleep))
    with pytest.raises(Failure, match="exit code -15, not 75: step 3/40"):
        fault_signals._stopped(bench, tmp_path, 0.0)


def test_a_moment_that_comes_too_late_is_drawn_again(tmp_path):
    tried = []

    def act(moment):
        tried.append(moment)
        return {"moment": moment} if moment < 1 else {}

    drawn = [
        in_time(act, tmp_path / "run", 50.0, np.random.default_rng(seed))["moment"]
        for seed in range(400)
    ]
    assert max(drawn) < 1 < 10 < max(tried)
    assert len(tried) < 400 * 8
    assert np.quantile(drawn, [0.25, 0.5, 0.75]) == pytest.approx(
        [0.25, 0.5, 0.75], abs=0.1
    )


def test_a_run_that_begins_anew_is_a_failure(tmp_path):
    log(tmp_path).write_text("step 1/40\nstep 2/40\n")
    check_went_on(tmp_path, 0, 0)
    check_went_on(tmp_path, 10, 1)
    with pytest.raises(Failure, match="went on at step 1, saved was step 20"):
        check_went_on(tmp_path, 0, 20)
