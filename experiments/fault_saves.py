"""Saves: a run that is killed while it writes a checkpoint keeps those before."""

import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np

from experiments.fault_checks import Failure, check, check_readable, newest
from experiments.fault_runs import (
    Bench,
    Facts,
    Row,
    ended,
    repeat,
    said,
    start,
    total,
    wait,
)
from uets_jax.errors import EXIT_STOPPED

# Ten megabytes of state, saved after each of very many short steps
SAVING = (
    "--model.size=nano",
    "--data.length=16",
    "--train.batch=1",
    "--train.steps=1000000",
    "--train.checkpoint-every=1",
    "--train.eval-every=0",
    "--train.keep=2",
    "--optim.learning-rate=1e-4",
)


def kill_in_save(bench: Bench, trials: int) -> Row:
    """SIGKILL around a save, again and again to one run that saves after each step."""
    run = bench.folder / "kill_in_save" / "run"

    def trial(out: Path, rng: np.random.Generator) -> Facts:
        before, seen = newest(run), _kill_in_save(bench, run, rng)
        try:
            check(newest(run) >= seen, f"step {seen} was saved, {newest(run)} is there")
            check_readable(run)
            left = unfinished(run)
            check(len(left) < 2, f"never swept: {left}")
        except Failure:
            shutil.copytree(run, out)  # the run itself goes on
            raise
        return {"hits": len(left), "saves": newest(run) - before}

    row, facts = repeat(bench, "kill_in_save", trials, trial)
    swept, more = repeat(bench, "sweep", 1, lambda *_: _stop_after_save(bench, run))
    return row | {
        "failures": row["failures"] + swept["failures"],
        "hits": total(facts, "hits"),
        "saves": total(facts + more, "saves"),
    }


def _kill_in_save(bench: Bench, run: Path, rng: np.random.Generator) -> int:
    """Kills the run in one of its saves; the newest step that was seen before."""
    process = start(bench, run, SAVING)
    try:
        seconds = _wait_for_save(process, run, int(rng.integers(3)), bench.patience)
        if rng.integers(3):
            time.sleep(rng.uniform(0, seconds))
        else:  # when a save is complete, the oldest one is dropped
            last = newest(run)
            wait(process, run, lambda: newest(run) > last, bench.patience)
            time.sleep(rng.uniform(0, 0.005))
        return newest(run)
    finally:
        process.kill()
        process.wait()


def unfinished(run: Path) -> list[Path]:
    """What a save in progress, or a killed one, has in the folder of checkpoints."""
    found = (run / "checkpoints").glob("*")
    return [p for p in found if not (p.name.isdecimal() or p.name.endswith(".damaged"))]


def _wait_for_save(
    process: subprocess.Popen[bytes], run: Path, number: int, patience: float
) -> float:
    """Waits until the process begins its save `number`; seconds that the last took."""
    began, seconds = time.time(), 0.2
    until = lambda condition: wait(process, run, condition, patience)
    fresh = lambda: any(_changed(path) > began for path in unfinished(run))
    until(fresh)
    for _ in range(number):
        since, before = time.monotonic(), newest(run)
        until(lambda before=before: newest(run) > before)
        seconds = time.monotonic() - since
        until(fresh)
    return seconds


def _changed(path: Path) -> float:
    """When something was last added to a folder; 0 once it has gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _stop_after_save(bench: Bench, run: Path) -> Facts:
    """An orderly end: nothing unfinished is left, everything is readable."""
    before = newest(run)
    process = start(bench, run, SAVING)
    wait(process, run, lambda: newest(run) > before, bench.patience)
    process.send_signal(signal.SIGTERM)
    code = ended(bench, process)
    check(code == EXIT_STOPPED, f"exit code {code}, not 75: {said(run)}")
    left = unfinished(run)
    check(not left, f"never swept: {left}")
    check_readable(run)
    return {"saves": newest(run) - before}
