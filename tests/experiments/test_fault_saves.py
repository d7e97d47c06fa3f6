import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import fault_saves
from experiments.fault_runs import Bench
from experiments.fault_saves import kill_in_save, unfinished

# what a program would do that writes under the final name, and never sweeps
CARELESS = """
import pathlib, sys, time
root = pathlib.Path(sys.argv[1]) / "checkpoints"
for step in range(1, 1000):
    (root / f".tmp-{step:08d}").mkdir(parents=True)
    time.sleep(0.02)
    (root / f"{step:08d}").mkdir()
    time.sleep(0.02)
"""


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path, Path(os.environ["UETS_CACHE"], "faults"), patience=60.0)


@pytest.mark.slow
def test_a_kill_in_a_save_leaves_the_checkpoints_before(bench, monkeypatch):
    size, *others = fault_saves.SAVING
    assert size == "--model.size=nano"  # which takes seconds to compile
    monkeypatch.setattr(fault_saves, "SAVING", (*others,))
    row = kill_in_save(bench, 1)
    assert row["failures"] == 0
    assert row["hits"] in (0, 1)
    assert row["saves"] > 0


def test_a_careless_program_is_found_out(bench, monkeypatch, capsys):
    careless = lambda bench, run, flags: subprocess.Popen(
        [sys.executable, "-c", CARELESS, str(run)], stderr=subprocess.DEVNULL
    )
    monkeypatch.setattr(fault_saves, "start", careless)
    row = kill_in_save(bench, 1)
    assert row["failures"] == 2
    error = capsys.readouterr().err
    assert "unreadable: " in error
    assert "sweep: trial 0" in error


def test_what_is_unfinished_has_no_number_as_its_name(tmp_path):
    root = tmp_path / "checkpoints"
    assert unfinished(tmp_path) == []
    for name in ("00000004", "00000008.damaged", ".tmp-00000012", "other.orbax-tmp"):
        (root / name).mkdir(parents=True)
    found = sorted(p.name for p in unfinished(tmp_path))
    assert found == [".tmp-00000012", "other.orbax-tmp"]
