"""Signals: a run that is killed or told to stop goes on as if nothing had happened."""

import functools
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from experiments.fault_checks import check, check_readable, check_same, figures, newest
from experiments.fault_runs import (
    Bench,
    Facts,
    Row,
    complete,
    ended,
    log,
    remove,
    repeat,
    said,
    start,
    steps_shown,
    total,
    wait,
    whole,
    worst,
)
from uets_jax.errors import EXIT_OK, EXIT_STOPPED


def kill9(bench: Bench, trials: int) -> Row:
    """SIGKILL once or twice, each at a moment uniform over the life of a process."""
    reference = whole(bench)

    def trial(out: Path, rng: np.random.Generator) -> Facts:
        kill = functools.partial(_killed, bench, out)
        facts = in_time(kill, out, reference.life, rng)
        again = kill(rng.uniform(0, reference.life)) if rng.integers(2) else {}
        _go_on(bench, out)
        check_same(reference.path, out)
        return {
            "kills": 1 + bool(again),
            "early": facts["early"] + again.get("early", 0),
            "lost": max(facts["lost"], again.get("lost", 0)),
        }

    row, facts = repeat(bench, "kill9", trials, trial)
    return row | {
        "kills": total(facts, "kills"),
        "before_first_checkpoint": total(facts, "early"),
        "steps_lost": worst(facts, "lost"),
    }


def in_time(
    act: Callable[[float], Facts], out: Path, longest: float, rng: np.random.Generator
) -> Facts:
    """Does something at a moment uniform over the life of a run.

    Where it comes too late, which it says by {}, the run is begun anew: it lived for
    less than that moment.
    """
    moment = rng.uniform(0, longest)
    while not (facts := act(moment)):
        remove(out)
        moment = rng.uniform(0, moment)
    return facts


def _killed(bench: Bench, out: Path, moment: float) -> Facts:
    """Kills a run so many seconds after it is begun; {} if it has ended before."""
    since, before = _size(out), newest(out)
    process = start(bench, out, ("--train.keep=2",))
    try:
        code = process.wait(moment)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    else:
        check(code == EXIT_OK, f"exit code {code} before the kill: {said(out)}")
        return {}
    check_went_on(out, since, before)
    if newest(out):
        check_readable(out)
    done = max(steps_shown(out, since), default=before)
    return {"early": newest(out) == 0, "lost": max(done - newest(out), 0)}


def _go_on(bench: Bench, out: Path) -> None:
    """Resumes to the end."""
    since, before = _size(out), newest(out)
    complete(bench, out)
    check_went_on(out, since, before)


def check_went_on(out: Path, since: int, before: int) -> None:
    """The first step in the log after its byte `since` is the one after `before`."""
    first = next(iter(steps_shown(out, since)), before + 1)
    check(first == before + 1, f"went on at step {first}, saved was step {before}")


def _size(out: Path) -> int:
    """Bytes in the log."""
    return log(out).stat().st_size if log(out).exists() else 0


def sigterm(bench: Bench, trials: int) -> Row:
    """SIGTERM at a moment uniform over the steps: saved at once, exit code 75."""
    reference = whole(bench).path
    last = reference / "checkpoints" / f"{bench.steps:08d}"
    span = last.stat().st_mtime - (reference / "config.json").stat().st_mtime

    def trial(out: Path, rng: np.random.Generator) -> Facts:
        facts = in_time(functools.partial(_stopped, bench, out), out, span, rng)
        _go_on(bench, out)
        check_same(reference, out)
        return facts

    row, facts = repeat(bench, "sigterm", trials, trial)
    return row | {"exit_seconds": worst(facts, "exit")}


def _stopped(bench: Bench, out: Path, moment: float) -> Facts:
    """Stops a run so many seconds after its first step; {} if it was past its last."""
    process = start(bench, out)
    wait(process, out, (out / "config.json").exists, bench.patience)
    time.sleep(moment)
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)
    code = ended(bench, process)
    seconds = time.monotonic() - sent
    if code in (EXIT_OK, -signal.SIGTERM) and newest(out) == bench.steps:
        return {}
    check(code == EXIT_STOPPED, f"exit code {code}, not 75: {said(out)}")
    told = re.search(r"at step (\d+)", said(out))
    step = int(told[1]) if told else None
    check(step == newest(out), f"stopped at step {step}, saved is {newest(out)}")
    logged = max(record["step"] for record in figures(out))
    check(step == logged, f"stopped at step {step}, metrics end at {logged}")
    check_readable(out)
    return {"exit": round(seconds, 3)}
