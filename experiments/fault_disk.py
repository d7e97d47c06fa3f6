"""Full disks: a run that can't be saved ends in one clear line and loses nothing."""

import contextlib
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from experiments.fault_checks import check, check_readable, check_same, newest
from experiments.fault_runs import (
    Bench,
    Facts,
    Row,
    complete,
    ended,
    log,
    repeat,
    start,
    steps_shown,
    whole,
    worst,
)
from uets_jax.train import checkpoint

PAGE = 4096  # bytes: in such pieces tmpfs gives space away
SPARE = 4 * PAGE  # by how much two equal runs may differ: they hold clocks
ROOM = 256 << 20  # bytes: enough for any run here

Process = subprocess.Popen[bytes]
# in its context: what to do to the new process, and what to do to lift the limit
Limit = Callable[[Path, int], contextlib.AbstractContextManager[tuple]]


def disk_full(bench: Bench, trials: int) -> Row:
    """The same run where there is too little room; then there is enough, it goes on."""
    method = "tmpfs" if can_mount(bench.folder / "mount") else "rlimit"
    sizes = METHODS[method][1](bench, trials)

    def trial(out: Path, _: np.random.Generator) -> Facts:
        return full(bench, out, sizes[int(out.name)], method)

    row, facts = repeat(bench, "disk_full", trials, trial)
    return row | {
        "method": method,
        "smallest_bytes": min(sizes),
        "largest_bytes": max(sizes),
        "steps_lost": worst(facts, "lost"),
    }


def full(bench: Bench, out: Path, size: int, method: str) -> Facts:
    """A run with `size` bytes of room, and its continuation with enough.

    Raises:
      Failure: naming the size and what went wrong.
    """
    with METHODS[method][0](out, size) as (limit, lift):
        process = start(bench, out)
        limit(process)
        code = ended(bench, process)
        check_end(out, code, f"{method} of {size} bytes")
        facts = _check_saved(bench, out)
        lift()
        complete(bench, out)
        check_same(whole(bench).path, out)
    return facts


def check_end(out: Path, code: int, where: str) -> None:
    """One line that names the path, and an exit code that is no success.

    Raises:
      Failure: if there is more, less or something else.
    """
    text = log(out).read_text("utf-8", "replace")
    check(code > 0, f"{where}: exit code {code}")
    check("Traceback" not in text, f"{where}: a traceback")
    errors = [line for line in text.splitlines() if line.startswith("uets: error: ")]
    one = len(errors) == 1 and text.splitlines()[-1] == errors[0]
    check(one, f"{where}: not one line at the end but {errors}")
    check(str(out) in errors[0], f"{where}: no path is named: {errors[0]}")


def _check_saved(bench: Bench, out: Path) -> Facts:
    """All checkpoints before the one without room, which may show one later."""
    steps = checkpoint.steps(out / "checkpoints")
    done = max(steps_shown(out), default=0)
    due = list(range(bench.every, done + 1, bench.every))
    check(steps == due[: len(steps)], f"of the steps {due} only {steps} are saved")
    check(len(due) - len(steps) <= 2, f"of the steps {due} only {steps} are saved")
    check_readable(out)
    return {"lost": done - newest(out)}


@contextlib.contextmanager
def _small_disk(out: Path, size: int) -> Iterator[tuple]:
    """`out` as a file system of its own; its content is kept if there is a failure."""
    out.mkdir(parents=True)
    _mount(out, f"size={size}")
    try:
        yield (lambda process: None), (lambda: _mount(out, f"remount,size={ROOM}"))
    except BaseException:
        shutil.copytree(out, out.with_name(out.name + "-kept"), dirs_exist_ok=True)
        raise
    finally:
        subprocess.run(["umount", out], check=True)


def _mount(out: Path, options: str) -> None:
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", out],
        check=True,
        capture_output=True,
    )


def can_mount(folder: Path) -> bool:
    """Whether this user may mount a file system."""
    try:
        with _small_disk(folder, PAGE):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _small_files(out: Path, size: int) -> Iterator[tuple]:
    """No file of the process may grow beyond `size`; later processes are free."""
    cap = lambda process: resource.prlimit(
        process.pid, resource.RLIMIT_FSIZE, (size, size)
    )
    yield cap, lambda: None


def disk_sizes(bench: Bench, trials: int) -> list[int]:
    """Bytes: too few for one checkpoint, for the last one, at last for the report."""
    out = whole(bench).path
    first = pages(out / "checkpoints" / f"{bench.every:08d}")
    last = pages(out) - pages(out / "summary.json") - pages(out / "report.html")
    few, many = trials // 3, trials - trials // 3 - 1
    sizes = [
        *np.geomspace(PAGE, first, few),
        *np.linspace(first + PAGE, last - SPARE, many),
        pages(out) - SPARE,
    ]
    return [int(size) // PAGE * PAGE for size in sizes]


def file_sizes(bench: Bench, trials: int) -> list[int]:
    """Bytes: from one up to one too few for the largest file of a run."""
    files = (p for p in whole(bench).path.rglob("*") if p.is_file())
    largest = max(p.stat().st_size for p in files)
    return [int(size) for size in np.geomspace(1, largest - 1, trials)]


def pages(path: Path) -> int:
    """Bytes of a file or of all files in a folder, in whole pages."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(-(-p.stat().st_size // PAGE) * PAGE for p in files)


METHODS: dict[str, tuple[Limit, Callable[[Bench, int], list[int]]]] = {
    "tmpfs": (_small_disk, disk_sizes),
    "rlimit": (_small_files, file_sizes),
}
