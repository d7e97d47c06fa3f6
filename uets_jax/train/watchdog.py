"""Ends a run of several processes in which nothing moves any more."""

import sys
import threading
import time
from collections.abc import Callable

from uets_jax.errors import EXIT_STUCK
from uets_jax.train.processes import leave


class Watchdog:
    """Within the context, `beat` must come every `seconds`, or the process ends.

    A process that is stuck, or waits for one that is, can't be interrupted from
    inside; so it ends at once, with exit code 124 and one line that says what it did
    last. What checkpoints hold is kept. 0 seconds: no watchdog.
    """

    def __init__(
        self,
        seconds: int | float,
        end: Callable[[int], None] = leave,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds, self._end, self._now = seconds, end, now
        self._doing, self._last = "starting", now()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def beat(self, doing: str) -> None:
        """Something moved: what comes next is `doing`."""
        self._doing, self._last = doing, self._now()

    def __enter__(self) -> "Watchdog":
        if self._seconds:
            self.beat(self._doing)
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(min(1.0, self._seconds / 4)):
            if self._now() - self._last > self._seconds:
                print(
                    f"uets: error: no progress for {self._seconds:g} s while "
                    f"{self._doing}: this process or another one is stuck; go on with "
                    "--resume",
                    file=sys.stderr,
                    flush=True,
                )
                self._end(EXIT_STUCK)
                return
