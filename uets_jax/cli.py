"""The command line: `uets train | cost | eval | report | baseline | ...`.

Each command is a dataclass of its flags (`options`) and a function from what was given
to what is printed (`commands`).
"""

import os
import sys
from collections.abc import Sequence

from uets_jax import flags
from uets_jax.commands import COMMANDS
from uets_jax.errors import (
    ENDS,
    EXIT_BAD_INPUT,
    EXIT_OK,
    StoppedError,
    exit_code,
    nearest,
)

EXIT_INTERRUPTED = 130
EXIT_PIPE = 141


_NO_MEMORY = (
    "out of memory on the device: raise --train.microbatches, set --model.remat or "
    "take a smaller model or batch"
)


class _ClosedPipeError(Exception):
    """Nobody reads standard output any more."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    0 done, 2 bad input or configuration, 3 the loss became NaN or infinite, 75 stopped
    by a signal after saving, 124 another process is stuck or gone, 130 interrupted, 141
    the reader of the output went away.
    """
    try:
        _say(_dispatch(list(sys.argv[1:] if argv is None else argv)))
    except flags.UsageError as error:
        return _complain(str(error), EXIT_BAD_INPUT)
    except StoppedError as error:
        return _complain(f"uets: {error}", exit_code(error))
    except ENDS as error:
        return _complain(f"uets: error: {error}", exit_code(error))
    except OSError as error:
        where = error.filename or "a file"
        return _complain(f"uets: error: {where}: {error.strerror}", EXIT_BAD_INPUT)
    except RuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return _complain(f"uets: error: {_NO_MEMORY}", EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except _ClosedPipeError:
        return EXIT_PIPE
    return EXIT_OK


def _dispatch(argv: list[str]) -> str:
    """What the command line prints."""
    name, rest = (argv[0], argv[1:]) if argv else ("", [])
    if name in ("-h", "--help"):
        return _overview()
    if name in ("-V", "--version"):
        return f"uets {_version()}"
    if not name:
        raise flags.UsageError(f"uets: no command: {nearest('', COMMANDS)}")
    if name not in COMMANDS:
        hint = nearest(name, COMMANDS)
        raise flags.UsageError(f"uets: unknown command {name!r}: {hint}")
    command, title = COMMANDS[name], f"uets {name}"
    if "-h" in rest or "--help" in rest:
        return flags.help_page(title, command.options)
    return command.act(flags.parse(title, command.options, rest))


def _complain(line: str, code: int) -> int:
    print(" ".join(line.split()), file=sys.stderr)
    return code


def _say(text: str) -> None:
    """Prints to standard output, quietly giving up when its reader has gone."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise _ClosedPipeError from None


def _version() -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version("uets_jax")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _overview() -> str:
    lines = [f"  {name:<10}{c.options.__doc__}" for name, c in COMMANDS.items()]
    return "\n".join(
        (
            "usage: uets [--version] [--help] COMMAND ...\n",
            *lines,
            "\nuets COMMAND --help lists the flags of a command.",
        )
    )
