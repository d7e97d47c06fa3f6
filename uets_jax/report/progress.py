"""How far a run is: a bar on a terminal, one plain line now and then elsewhere."""

import collections
import math
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from uets_jax.report.units import clock, si

WINDOW = 100  # updates over which the speed is measured


@runtime_checkable
class Stream(Protocol):
    """What stderr can do."""

    def write(self, text: str, /) -> Any:
        """Takes text."""

    def flush(self) -> Any:
        """Passes it on."""


class Progress:
    """Loss, tokens per second and time left; a context manager.

    On a terminal a tqdm bar; elsewhere a line such as
    `step 120/400  loss 3.214  41.2k tok/s  eta 0:52` every `log_every` steps and at the
    last one. Trouble with the stream (closed, broken pipe) silences it, nothing more.

    Args:
      total: the step at which the run ends.
      initial: steps done before, when a run is resumed.
      log_every: steps between plain lines.
      stream: where to write; stderr unless told.
      now: a monotonic clock in seconds.
    """

    def __init__(
        self,
        total: int,
        initial: int = 0,
        log_every: int = 20,
        stream: Stream | None = None,
        now: Callable[[], float] = time.monotonic,
    ):
        self.total, self.log_every = total, max(1, log_every)
        self._stream = sys.stderr if stream is None else stream
        self._now = now
        self._recent: collections.deque[tuple[float, int, float]] = collections.deque(
            maxlen=WINDOW
        )
        self._bar: Any = None
        self._more = ""
        if self._on_terminal():
            self._guard(self._open_bar, initial)

    def update(
        self,
        step: int,
        loss: float | None = None,
        tokens: int | float = 0,
        more: str = "",
    ) -> None:
        """Reports that `step` steps are done; `tokens` counts from the run's start.

        Args:
          more: something else to show, at the end of the figures.
        """
        self._more = more
        self._recent.append((self._now(), step, tokens))
        if self._bar is not None:
            self._guard(self._move_bar, step, loss)
        elif step % self.log_every == 0 or step == self.total:
            self._guard(self._print, self._line(step, loss))

    def ends_at(self, step: int) -> None:
        """The run ends at another step than was thought."""
        self.total = step
        if self._bar is not None:
            self._guard(self._stretch_bar)

    def note(self, text: str) -> None:
        """Writes a line of its own, above the bar where there is one."""
        if self._bar is not None:
            self._guard(lambda: self._bar.write(text, file=self._stream))
        else:
            self._guard(self._print, text)

    def close(self) -> None:
        """Leaves the bar as it is; a second call does nothing."""
        bar, self._bar = self._bar, None
        if bar is not None:
            self._guard(bar.close)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _line(self, step: int, loss: float | None) -> str:
        parts = [f"step {step}/{self.total}", *self._figures(loss)]
        steps, _, seconds = self._advance()
        if steps > 0:
            parts.append(f"eta {clock(max(0, self.total - step) * seconds / steps)}")
        return "  ".join(parts)

    def _figures(self, loss: float | None) -> list[str]:
        parts = [] if loss is None else [f"loss {loss:.3f}"]
        _, tokens, seconds = self._advance()
        if tokens > 0 and seconds > 0 and math.isfinite(tokens):
            parts.append(f"{si(tokens / seconds)} tok/s")
        return [*parts, self._more] if self._more else parts

    def _advance(self) -> tuple[int, float, float]:
        """Steps, tokens and seconds between the oldest and the newest recent update."""
        if not self._recent:
            return 0, 0.0, 0.0
        (t0, s0, k0), (t1, s1, k1) = self._recent[0], self._recent[-1]
        return s1 - s0, float(k1 - k0), t1 - t0

    def _open_bar(self, initial: int) -> None:
        from tqdm import tqdm

        self._bar = tqdm(
            total=self.total,
            initial=initial,
            file=self._stream,
            dynamic_ncols=True,
            unit="step",
        )

    def _move_bar(self, step: int, loss: float | None) -> None:
        self._bar.set_postfix_str("  ".join(self._figures(loss)), refresh=False)
        self._bar.update(step - self._bar.n)

    def _stretch_bar(self) -> None:
        self._bar.total = self.total
        self._bar.refresh()

    def _print(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()

    def _on_terminal(self) -> bool:
        try:
            return bool(getattr(self._stream, "isatty", bool)())
        except (AttributeError, OSError, ValueError):
            return False

    def _guard(self, action: Callable[..., Any], *args: Any) -> None:
        """Training outlives its terminal: stream errors end the display only."""
        try:
            action(*args)
        except (AttributeError, OSError, ValueError):
            if self._bar is not None:
                self._bar.disable = True  # or its __del__ tries once more
                self._bar = None
