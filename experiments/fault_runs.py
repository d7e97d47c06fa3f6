"""Runs to which faults are done, begun as a user begins them; trials repeated."""

import dataclasses
import functools
import os
import re
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.fault_checks import Failure, check
from uets_jax.errors import EXIT_OK

Row = dict[str, Any]
Facts = Mapping[str, float]

ROOT = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Bench:
    """Where runs are made, and the run that most faults are done to.

    folder: of runs; those of failed trials stay there.
    cache: of token stores and compiled programs, shared by all runs.
    seed: of the faults, not of the runs.
    steps: of the run; `every`: between its validations and its checkpoints.
    patience: seconds after which a process counts as hung.
    """

    folder: Path
    cache: Path
    seed: int = 0
    steps: int = 800
    every: int = 50
    patience: float = 300.0

    @property
    def flags(self) -> tuple[str, ...]:
        """Of a new run on the command line."""
        return (
            "--recipe=tiny",
            f"--train.steps={self.steps}",
            f"--train.checkpoint-every={self.every}",
            f"--train.eval-every={self.every}",
            "--train.eval-tokens=2048",
            "--train.log-every=1",
            "--train.samples=0",
            f"--train.keep={self.steps}",
        )


def start(
    bench: Bench, out: Path, flags: tuple[str, ...] = (), devices: int = 1
) -> subprocess.Popen[bytes]:
    """Begins a run in `out`, or goes on with the one there, in a process of its own.

    What it says goes to `log(out)`.

    Args:
      flags: of a new run, after those of the bench.
      devices: virtual ones, of the CPU.
    """
    begun = (out / "config.json").exists()
    words = ["--resume", out] if begun else [*bench.flags, *flags, "--out", out]
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "XLA_FLAGS": "",
        "UETS_CACHE": str(bench.cache),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with log(out).open("ab") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", "uets_jax", "train", *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stream,
            env=environment,
            cwd=ROOT,
        )


def ended(bench: Bench, process: subprocess.Popen[bytes]) -> int:
    """The exit code of a process that ends by itself.

    Raises:
      Failure: if it does not end.
    """
    try:
        return process.wait(bench.patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise Failure(f"hung: no end in {bench.patience:.0f} s") from None


def complete(
    bench: Bench, out: Path, flags: tuple[str, ...] = (), devices: int = 1
) -> None:
    """Runs to the end, from wherever the run in `out` is.

    Raises:
      Failure: unless it ends well.
    """
    code = ended(bench, start(bench, out, flags, devices))
    check(code == EXIT_OK, f"exit code {code} of a run that should end: {said(out)}")


def wait(
    process: subprocess.Popen[bytes],
    out: Path,
    condition: Callable[[], bool],
    patience: float,
) -> None:
    """Waits for a condition of a living process; else kills it and raises `Failure`."""
    end = time.monotonic() + patience
    while not condition():
        code = process.poll()
        check(code is None, f"ended with exit code {code}: {said(out)}")
        if time.monotonic() > end:
            process.kill()
            raise Failure(f"hung: {patience:.0f} s without progress: {said(out)}")
        time.sleep(0.001)


class Whole(NamedTuple):
    """A run that nothing was done to, and the seconds that its process lived."""

    path: Path
    life: float


@functools.lru_cache(maxsize=8)
def whole(bench: Bench) -> Whole:
    """The run of the bench, made once, with its programs already compiled."""
    out = bench.folder / "whole"
    remove(out)
    if not bench.cache.exists():
        complete(bench, out, ("--train.steps=2",))
        remove(out)
    began = time.monotonic()
    complete(bench, out)
    return Whole(out, time.monotonic() - began)


def log(out: Path) -> Path:
    """Beside the run's folder, which may be a full disk."""
    return out.with_name(out.name + ".log")


def said(out: Path) -> str:
    """The last line of the log."""
    known = log(out).exists()
    lines = log(out).read_text("utf-8", "replace").splitlines() if known else []
    return next((line for line in reversed(lines) if line.strip()), "nothing was said")


def steps_shown(out: Path, since: int = 0) -> list[int]:
    """The steps of which the log tells, from a byte of it on."""
    text = log(out).read_bytes()[since:].decode("utf-8", "replace")
    return [int(step) for step in re.findall(r"^step (\d+)/", text, re.MULTILINE)]


def remove(out: Path) -> None:
    """Removes a run and its log, where they are."""
    shutil.rmtree(out, ignore_errors=True)
    log(out).unlink(missing_ok=True)


def repeat(
    bench: Bench,
    fault: str,
    trials: int,
    trial: Callable[[Path, np.random.Generator], Facts],
) -> tuple[Row, list[Facts]]:
    """Does a trial so many times; each has its own folder and its own random numbers.

    Whatever a trial raises is a failure: it is printed, counted, and its run kept.
    """
    began, failures, facts = time.monotonic(), 0, []
    shutil.rmtree(bench.folder / fault, ignore_errors=True)
    for number in range(trials):
        out = bench.folder / fault / f"{number:03d}"
        rng = np.random.default_rng([bench.seed, zlib.crc32(fault.encode()), number])
        try:
            facts.append(trial(out, rng))
        except Exception as error:
            what = str(error) if isinstance(error, Failure) else repr(error)
            failures += 1
            line = f"{fault}: trial {number}: {what} (see {out})"
            print(line, file=sys.stderr, flush=True)
        else:
            remove(out)
    seconds = round(time.monotonic() - began, 1)
    row = {"fault": fault, "trials": trials, "failures": failures, "seconds": seconds}
    return row, facts


def total(facts: list[Facts], name: str) -> float:
    """The sum of a fact over trials."""
    return sum(f.get(name, 0) for f in facts)


def worst(facts: list[Facts], name: str) -> float | None:
    """The largest value of a fact over trials; None if no trial has it."""
    return max((f[name] for f in facts if name in f), default=None)
