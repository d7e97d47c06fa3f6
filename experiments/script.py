"""What the command lines of the experiments share."""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.arms import UNIT
from uets_jax.errors import ENDS, UserError, exit_code

SEEDS = 3


def command(name: str, words: Sequence[str]) -> str:
    """The words that a shell takes to run a script of this folder again.

    Absolute paths become relative to the working directory: records name no machine's.
    """
    plain = [os.path.relpath(w) if os.path.isabs(w) else w for w in words]
    return " ".join([f"python -m experiments.{name}", *map(shlex.quote, plain)])


def ended(name: str, run: Callable[[], int]) -> int:
    """The exit code of `run`; bad input and signals end in one line.

    Args:
      name: of the script.
      run: returns an exit code.
    """
    try:
        return run()
    except ENDS as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return exit_code(error)


def queue_parser(name: str, runs: str, seeds: int = SEEDS) -> argparse.ArgumentParser:
    """The flags of a script that runs a queue; `--worker` is for its workers."""
    found = argparse.ArgumentParser(prog=f"python -m experiments.{name}")
    flag = found.add_argument
    flag("--seeds", type=int, default=seeds)
    flag("--unit", type=float, default=UNIT, help="FLOPs of U")
    flag("--workers", type=int, default=1, help="processes, a core each")
    flag("--out", type=Path, default=Path("results"))
    flag("--runs", type=Path, default=Path(runs))
    flag("--data-dir", type=Path, default=Path("../shared/data"))
    flag("--worker", type=int, default=-1, help=argparse.SUPPRESS)
    return found


def check_queue(given: argparse.Namespace) -> None:
    """Raises UserError for numbers that no queue can have."""
    if given.seeds < 1 or given.workers < 1 or not given.unit > 0:
        raise UserError("--seeds, --workers and --unit must be above 0")
