import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import fault_disk
from experiments.fault_checks import Failure
from experiments.fault_disk import (
    METHODS,
    PAGE,
    can_mount,
    check_end,
    disk_sizes,
    file_sizes,
    full,
    pages,
)
from experiments.fault_runs import Bench, Whole, log, whole


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """The same as that of test_fault_signals, which may have made the whole run."""
    folder = tmp_path_factory.getbasetemp() / "faults"
    return Bench(folder, Path(os.environ["UETS_CACHE"], "faults"), steps=40, every=10)


@pytest.fixture
def sketch(tmp_path, monkeypatch):
    """What stands for a whole run: two checkpoints, a metrics file and a report."""
    run = tmp_path / "run"
    sizes = {
        "checkpoints/00000010/data": 5 * PAGE,
        "checkpoints/00000010/record.json": 1,
        "checkpoints/00000020/data": 9 * PAGE + 1,
        "metrics.jsonl": PAGE,
        "summary.json": 100,
        "report.html": 12 * PAGE,
    }
    for name, size in sizes.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(bytes(size))
    monkeypatch.setattr(fault_disk, "whole", lambda bench: Whole(run, 1.0))
    return Bench(tmp_path, tmp_path, steps=20, every=10)


@pytest.mark.slow
def test_a_disk_that_fills_up_loses_no_checkpoint(bench):
    method = "tmpfs" if can_mount(bench.folder / "mount") else "rlimit"
    size = METHODS[method][1](bench, 5)[2]
    first = pages(whole(bench).path / "checkpoints" / "00000010")
    assert method == "rlimit" or first < size < 3 * first
    facts = full(bench, bench.folder / "disk_full", size, method)
    assert 0 <= facts["lost"] <= 20


def test_sizes_spread_from_nothing_to_just_too_few(sketch):
    assert pages(sketch.folder / "run") == 30 * PAGE
    sizes = disk_sizes(sketch, 6)
    assert sizes == [n * PAGE for n in (1, 6, 7, 10, 13, 26)]
    assert len(disk_sizes(sketch, 1)) == 1
    assert file_sizes(sketch, 3) == [1, 221, 12 * PAGE - 1]


def test_no_file_may_grow_beyond_the_limit(tmp_path):
    writes = "import pathlib, time; time.sleep(0.5); p = pathlib.Path('{}')"
    writes += "; p.write_bytes(bytes(9000))"
    for size, code in ((8999, 1), (9000, 0)):
        out = tmp_path / str(size)
        with METHODS["rlimit"][0](out, size) as (limit, lift):
            command = [sys.executable, "-c", writes.format(out)]
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            limit(process)
            assert process.wait() == code
            lift()


RIGHT = "step 9/40\nuets: error: OUT/metrics.jsonl: no room; make room\n"


@pytest.mark.parametrize(
    ("text", "code", "complaint"),
    [
        (RIGHT, 0, "exit code 0"),
        (RIGHT, -9, "exit code -9"),
        ("Traceback (most recent call last):\n" + RIGHT, 1, "a traceback"),
        ("step 9/40\n", 2, "not one line at the end"),
        (RIGHT + RIGHT, 2, "not one line at the end"),
        (RIGHT + "Fatal Python error\n", 2, "not one line at the end"),
        ("uets: error: a file: No space left on device\n", 2, "no path is named"),
    ],
)
def test_any_other_end_than_one_line_is_a_failure(text, code, complaint, tmp_path):
    out = tmp_path / "run"
    log(out).write_text(RIGHT.replace("OUT", str(out)))
    check_end(out, 2, "here")
    log(out).write_text(text.replace("OUT", str(out)))
    with pytest.raises(Failure, match=complaint):
        check_end(out, code, "here")


def test_a_lost_checkpoint_is_a_failure(tmp_path):
    bench, out = Bench(tmp_path, tmp_path, every=10), tmp_path / "run"
    log(out).write_text("step 39/40\n")
    for steps in ([10, 30], [20, 30]):
        for step in steps:
            (out / "checkpoints" / f"{step:08d}").mkdir(parents=True, exist_ok=True)
        with pytest.raises(Failure, match=r"of the steps \[10, 20, 30\] only"):
            fault_disk._check_saved(bench, out)
        for step in steps:
            (out / "checkpoints" / f"{step:08d}").rmdir()
    with pytest.raises(Failure, match=r"only \[\] are saved"):
        fault_disk._check_saved(bench, out)
