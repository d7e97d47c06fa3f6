"""Optional sinks for metrics that can neither stop a run nor slow it."""

import collections
import contextlib
import importlib.util
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from uets_jax.errors import UserError, nearest
from uets_jax.report.sinks import Sink, TensorBoard, one_line
from uets_jax.report.wandb_sink import WandB, forget_wandb

QUEUE = 2000  # records that may wait for a sink; more are dropped
CLOSE_SECONDS = 5.0
PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}


class Worker:
    """One sink in a daemon thread of its own, behind a bounded queue.

    The first error of the sink is its last: it is switched off, and one line says so.
    Lines wait in `told`, for a thread must not write to another one's terminal.

    Args:
      make: opens the sink, in the thread.
      abandon: called once it is given up, so that nothing waits for it at exit.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[Callable[[str], None]], Sink],
        abandon: Callable[[], None] = lambda: None,
    ):
        self.name, self.told = name, collections.deque[str]()
        self.alive, self.dropped = True, 0
        self._make, self._abandon, self._closing = make, abandon, False
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(QUEUE)
        self._thread = threading.Thread(
            target=self._run, name=f"tracker {name}", daemon=True
        )
        self._thread.start()

    def write(self, record: dict[str, Any]) -> None:
        """Queues a copy of the record, or drops it; never waits."""
        if not self.alive:
            return
        try:
            self._queue.put_nowait(dict(record))
        except queue.Full:
            self.dropped += 1

    def end(self) -> None:
        """Asks the thread to write what waits and to close the sink."""
        self._closing = True
        with contextlib.suppress(queue.Full):  # then it wakes up anyway
            self._queue.put_nowait(None)

    def join(self, seconds: float) -> None:
        """Waits for the thread so long at most, then gives it up."""
        self._thread.join(max(0.0, seconds))
        if self._thread.is_alive():
            self.alive = False
            waiting = self._queue.qsize()
            self.told.append(f"{self.name}: not done in time, {waiting} records left")
            self._abandon()

    def _run(self) -> None:
        try:
            sink = self._make(self.told.append)
            while self.alive:
                record = self._queue.get()
                if record is not None:
                    sink.write(record)
                if self._closing and self._queue.empty():
                    break
            sink.close()
        except BaseException as error:  # SystemExit, too, ends but the sink
            self.alive = False
            self.told.append(f"{self.name}: switched off after {one_line(error)}")
            self._abandon()


class Trackers:
    """Passes records to every sink; a context manager.

    `write` takes microseconds whatever the sinks do, and nothing here raises. Warnings
    are passed to `warn` in the thread that calls `write` or `close`.
    """

    def __init__(self, workers: list[Worker], warn: Callable[[str], None]):
        self._workers, self._warn, self._step = workers, warn, 0

    def write(self, record: dict[str, Any]) -> None:
        """Queues the record for each sink; without a step it gets the last one's."""
        if not self._workers:
            return
        step = record.get("step")
        self._step = self._step if step is None else int(step)
        for worker in self._workers:
            worker.write({**record, "step": self._step})
            self._tell(worker)

    def close(self) -> None:
        """Waits up to `CLOSE_SECONDS` for all sinks together; again does nothing."""
        workers, self._workers = self._workers, []
        until = time.monotonic() + CLOSE_SECONDS
        for worker in workers:
            worker.end()
        for worker in workers:
            worker.join(until - time.monotonic())
            if worker.dropped:
                many = f"{worker.dropped} records were dropped, it was too slow"
                worker.told.append(f"{worker.name}: {many}")
            self._tell(worker)

    def _tell(self, worker: Worker) -> None:
        while worker.told:
            self._warn(worker.told.popleft())

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_trackers(
    names: str,
    folder: Path,
    config: dict[str, Any],
    name: str,
    warn: Callable[[str], None],
) -> Trackers:
    """The sinks in `names`, a comma list of "tensorboard" and "wandb"; "" is none.

    Args:
      folder: of the run; both sinks write in it, and go on in it after a resume.
      config: the run's settings, for W&B.
      name: of the run.
      warn: takes a line about a sink that is offline, slow or switched off.

    Raises:
      UserError: for an unknown name, or where its package isn't installed.
    """
    wanted = dict.fromkeys(filter(None, (n.strip() for n in names.split(","))))
    for sink in wanted:
        if sink not in PACKAGES:
            raise UserError(f"no tracker {sink!r}: {nearest(sink, PACKAGES)}")
        if importlib.util.find_spec(PACKAGES[sink]) is None:
            raise UserError(
                f"tracker {sink!r}: {PACKAGES[sink]} isn't installed; "
                'pip install "uets_jax[trackers]"'
            )
    workers = {
        "tensorboard": lambda: Worker("tensorboard", lambda _: TensorBoard(folder)),
        "wandb": lambda: Worker(
            "wandb", lambda told: WandB(folder, config, name, told), forget_wandb
        ),
    }
    return Trackers([workers[sink]() for sink in wanted], warn)
