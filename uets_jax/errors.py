"""What can end a run, and the exit code that each one has."""

import difflib
from collections.abc import Iterable

EXIT_OK = 0
EXIT_BAD_INPUT = 2
EXIT_NON_FINITE = 3
EXIT_STOPPED = 75
EXIT_STUCK = 124


class UserError(ValueError):
    """Bad input or configuration: one line that names the culprit and the mend."""


class NonFiniteLossError(RuntimeError):
    """The training loss became NaN or infinite; the run ends with exit code 3."""


class StoppedError(RuntimeError):
    """A signal stopped the run after its state was saved; exit code 75."""


class LostProcessError(RuntimeError):
    """Another process of the run is gone; exit code 124."""


ENDS = (UserError, NonFiniteLossError, StoppedError, LostProcessError)


def exit_code(error: Exception) -> int:
    """The exit code of one of `ENDS`."""
    codes = (EXIT_BAD_INPUT, EXIT_NON_FINITE, EXIT_STOPPED, EXIT_STUCK)
    return next(c for e, c in zip(ENDS, codes, strict=True) if isinstance(error, e))


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint such as `did you mean 'depth'?`, or the choices when none is near."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return "choose from " + ", ".join(known)
