"""A queue of runs: in-process, resumable, one JSON per run.

What is to be run is a plan: a pure function from the results so far to the jobs that
are wanted, in order. A grid is a plan that looks at nothing; a search looks at its
trials. Whoever starts the same command again goes on where it was stopped, and several
workers can serve one queue: each takes the first job that nobody has.

Runs that differ in nothing but traced values (rate, decay, warm-up, horizon, seed)
share one executable.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from uets_jax.config import ExperimentConfig, config_hash, to_dict
from uets_jax.errors import NonFiniteLossError, StoppedError, UserError
from uets_jax.measure.flops import step_flops
from uets_jax.report.units import duration
from uets_jax.train.files import said_to, told, write_json
from uets_jax.train.interrupts import Interrupts
from uets_jax.train.loop import Result, train

# What a run in a queue does not need.
QUIET = {"checkpoint_every": 0, "samples": 0, "log_every": 1 << 20, "keep": 1}
KEPT = (
    "bits_per_byte",
    "final_loss",
    "final_train_loss",
    "steps",
    "params",
    "tokens",
    "flops",
    "matmul_flops",
    "seconds",
    "joules",
    "joules_estimate",
    "peak_memory_bytes",
    "params_sha256",
    "data_sha256",
    "corpus_sha256",
    "machine",
    "versions",
    "commit",
)
STOPPED = "stopped by {}; the same command goes on"
WAIT = 2.0  # seconds between two looks at jobs that others have


@dataclasses.dataclass(frozen=True)
class Job:
    """One run.

    name:    unique in its queue; a path of its record and its folder.
    config:  of the run.
    labels:  (key, value) pairs that its record carries: arm, track, ...
    measure: what else is read off the finished run, into its record.
    """

    name: str
    config: ExperimentConfig
    labels: tuple[tuple[str, Any], ...] = ()
    measure: "Measure | None" = None


Measure = Callable[[Result], Mapping[str, Any]]
Results = dict[str, dict[str, Any]]
Plan = Callable[[Results], Sequence[Job]]


def run_queue(plan: Plan, runs: Path, say: Callable[[str], None] = print) -> Results:
    """Runs all that the plan wants, and returns the record of every job by its name.

    A run whose loss is not finite is a result: `bits_per_byte` is None, `diverged`
    True. A run that was stopped in the middle goes on from its checkpoint.

    Args:
      plan: asked again after every run; it must want the same jobs for the same
        results, whoever asks.
      runs: folder of records `NAME.json` and run folders `NAME`.
      say: gets a line per run, with the time that the known rest will take.

    Raises:
      UserError: for bad input, or a record of another config under a job's name.
      StoppedError: after a signal; the same call goes on.
    """
    with Interrupts() as interrupts:
        return _run_queue(plan, runs, say, interrupts)


def _run_queue(
    plan: Plan, runs: Path, say: Callable[[str], None], interrupts: Interrupts
) -> Results:
    results: Results = {}
    pace = Pace()
    while True:
        if interrupts.caught:
            raise StoppedError(f"{runs}: {STOPPED.format(interrupts.caught)}")
        wanted = plan(results)
        while new := finished(wanted, results, runs):  # before anything is run
            results |= new
            wanted = plan(results)
        left = [job for job in wanted if job.name not in results]
        if not left:
            return results
        if not any(_try(job, runs, results, left, pace, say) for job in left):
            time.sleep(WAIT)


def finished(wanted: Sequence[Job], known: Results, runs: Path) -> Results:
    """Records on disk of the wanted jobs that are not known yet."""
    names = (job for job in wanted if job.name not in known)
    found = {job.name: read_result(job, runs) for job in names}
    return {name: record for name, record in found.items() if record is not None}


def read_result(job: Job, runs: Path) -> dict[str, Any] | None:
    """The record of a job, None where there is none yet.

    Raises:
      UserError: if it can't be read, or is of another config.
    """
    path = runs / f"{job.name}.json"
    record = read_file(path)
    if record is not None and record["config_hash"] != config_hash(job.config):
        raise UserError(
            f"{path}: of another config than this program would run; write --runs as "
            "before, give another one, or delete the file to run it again"
        )
    return record


def read_file(path: Path) -> dict[str, Any] | None:
    """The record in a file, None where there is no file.

    Raises:
      UserError: if it can't be read, or is none.
    """
    try:
        record = json.loads(path.read_text("utf-8"))
        _ = record["config_hash"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}; delete it to run it again") from None
    except (KeyError, TypeError):
        raise UserError(f"{path}: no record; delete it to run it again") from None
    return record


def _try(
    job: Job,
    runs: Path,
    results: Results,
    left: Sequence[Job],
    pace: "Pace",
    say: Callable[[str], None],
) -> bool:
    """Runs the job unless another worker has it; whether there is a new result."""
    with claimed(runs / f"{job.name}.lock") as mine:
        if not mine:
            return False
        record = read_result(job, runs)
        if record is None:
            start = time.perf_counter()
            record = run_job(job, runs)
            pace.add(job, time.perf_counter() - start)
            rest = [other for other in left if other is not job]
            say(_line(job, record, len(results) + 1, rest, pace))
    results[job.name] = record
    return True


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether this process has the lock of a file; it ends with the process."""
    with told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(handle)


def run_job(job: Job, runs: Path) -> dict[str, Any]:
    """Trains, measures and writes the record; the checkpoint is not kept."""
    folder = runs / job.name
    resume = (folder / "config.json").exists()
    record: dict[str, Any] = {"name": job.name, **dict(job.labels), "diverged": False}
    try:
        with said_to(runs / f"{job.name}.log"):
            result = train(job.config, folder, resume=resume)
        record |= {key: result.summary.get(key) for key in KEPT}
        record |= job.measure(result) if job.measure else {}
    except NonFiniteLossError as error:
        record |= {"bits_per_byte": None, "diverged": True, "why": str(error)}
    record |= {"config": to_dict(job.config), "config_hash": config_hash(job.config)}
    path = runs / f"{job.name}.json"
    with told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, record)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return record


class Pace:
    """How fast this worker is, in matmul FLOPs per second."""

    def __init__(self) -> None:
        self._flops, self._seconds = 0.0, 0.0

    def add(self, job: Job, seconds: float) -> None:
        """A job was run in so many seconds."""
        self._flops += job_flops(job)
        self._seconds += seconds

    def seconds(self, jobs: Sequence[Job]) -> float:
        """What the jobs will take one after the other."""
        flops = sum(job_flops(job) for job in jobs)
        return flops * self._seconds / max(self._flops, 1.0)


def job_flops(job: Job) -> float:
    """Matmul FLOPs of a run, in closed form."""
    return float(sum(step_flops(job.config).values()) * job.config.train.steps)


def _line(
    job: Job, record: dict[str, Any], done: int, rest: Sequence[Job], pace: Pace
) -> str:
    bits = record["bits_per_byte"]
    outcome = "diverged" if bits is None else f"{bits:.4f} bits per byte"
    eta = duration(pace.seconds(rest))
    known = f"[{done} done, {len(rest)} known to come: {eta}]"
    return f"{job.name}  {outcome}  {known}"


def serve(workers: int, module: str, words: Sequence[str]) -> None:
    """Lets `workers` processes of the same command serve its queue, a core each.

    Each is started as `python -m module words --worker I`; on two cores, two runs of a
    tiny model with a core each are done sooner than one after the other with both.

    Raises:
      UserError: if one of them fails; its own line stands above.
      StoppedError: after SIGTERM, once the workers have saved and ended.
    """
    command = [sys.executable, "-m", module, *words]
    started = [subprocess.Popen([*command, "--worker", str(i)]) for i in range(workers)]
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        codes = [process.wait() for process in started]
    except BaseException:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    if any(codes):
        raise UserError(f"workers ended with {codes}; the same command goes on")


def _stop(number: int, frame: Any) -> None:
    raise StoppedError(STOPPED.format("SIGTERM"))


def pin(worker: int) -> None:
    """Keeps this process, and the threads that it starts from now on, on one core."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[worker % len(cores)]})
