"""SIGTERM and SIGINT ask a run to save and stop; they never tear a step apart."""

import signal
import threading
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupts:
    """Within the context, `caught` is the signal's name once one has come.

    A second one acts as usual. Needs no `jax.distributed`. Outside the main thread,
    where Python can't set handlers, nothing is caught. What is caught inside another
    such context is known there, too: a queue of runs learns what its run has heard.
    """

    def __init__(self) -> None:
        self.caught: str | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._outer: Interrupts | None = None

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._handle)
            outer = getattr(self._before[_SIGNALS[0]], "__self__", None)
            self._outer = outer if isinstance(outer, Interrupts) else None
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()
        if self._outer is not None:
            self._outer.caught = self._outer.caught or self.caught

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.caught = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
