"""Several processes: joining them, one that writes, and what all of them agree on."""

import atexit
import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from uets_jax.errors import (
    ENDS,
    EXIT_STUCK,
    LostProcessError,
    StoppedError,
    UserError,
    exit_code,
)

HEARTBEAT = 30  # seconds of silence after which a process counts as lost
JOINING = 300  # seconds to wait for the others at the start
GRACE = 5  # seconds that process 0 leaves the others to end first
_GONE = ("gloo", "nccl", "unavailable", "heartbeat", "coordination", "connection")


@contextlib.contextmanager
def joined(coordinator: str, processes: int = 0, process: int = -1) -> Iterator[None]:
    """Within, this process is one of several; see `join`.

    After an error it leaves without waiting for the others, which then end, too: jax's
    own way out is a meeting of all.

    Raises:
      LostProcessError: if another process is gone.
    """
    join(coordinator, processes, process)
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        if not any(word in reason.lower() for word in _GONE):
            atexit.register(leave, 1)
            raise
        atexit.register(leave, EXIT_STUCK)
        raise LostProcessError(
            f"process {jax.process_index()}: another process is gone ({reason}); go on "
            "with --resume in all of them"
        ) from error
    except StoppedError:
        raise
    except Exception as error:
        known = isinstance(error, ENDS)
        atexit.register(leave, exit_code(error) if known else 1)
        raise


def leave(code: int) -> None:
    """Ends the process without jax's own handlers, which wait for all the others.

    Process 0, which the others are connected with, goes last: jax aborts (exit 134) a
    process that loses it, before that one can end in its own way.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if jax.process_count() > 1 and is_main():
        time.sleep(GRACE)
    os._exit(code)


def join(coordinator: str, processes: int = 0, process: int = -1) -> None:
    """Connects this process with the others of a run; before any computation.

    Args:
      coordinator: address of process 0, `HOST:PORT`; `auto`: taken, with the numbers,
        from the cluster (SLURM, Open MPI, Kubernetes, TPU).
      processes: how many there are.
      process: number of this one, from 0.

    Raises:
      UserError: if the numbers don't fit, or the others don't come.
    """
    given: dict[str, str | int] = {}
    if coordinator != "auto":
        if not 0 <= process < processes:
            raise UserError(
                f"--process: {process} is not in [0, {processes}); give --processes N "
                "and --process 0 ... N-1"
            )
        given = {
            "coordinator_address": coordinator,
            "num_processes": processes,
            "process_id": process,
        }
    try:
        jax.distributed.initialize(
            **given,  # pyright: ignore[reportArgumentType]
            heartbeat_timeout_seconds=HEARTBEAT,
            initialization_timeout=JOINING,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--coordinator {coordinator}: can't join the other processes ({reason})"
        ) from error


def is_main() -> bool:
    """Whether this process writes what all share: process 0."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until every process is here."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def alike(values: dict[str, Any]) -> None:
    """Compares values across the processes, which name them in the same order.

    Raises:
      UserError: in every process, naming the first value that differs from that of
        process 0.
    """
    if jax.process_count() == 1:
        return
    from jax.experimental import multihost_utils

    digest = lambda value: hashlib.sha256(repr(value).encode()).digest()
    own = np.stack([np.frombuffer(digest(v), np.uint8) for v in values.values()])
    found = multihost_utils.process_allgather(own)
    for name, column in zip(values, np.swapaxes(found, 0, 1), strict=True):
        other = np.flatnonzero((column != column[0]).any(axis=1))
        if len(other):
            raise UserError(
                f"{name}: process {other[0]} has another one than process 0 (here, in "
                f"process {jax.process_index()}: {values[name]!r}); start all with the "
                "same"
            )


def gather(tree):
    """`tree` with whole arrays in every process, as NumPy where there are several."""
    if jax.process_count() == 1:
        return tree
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(tree, tiled=True)


def agreement(mesh: Mesh) -> Callable[[bool], Int[Array, ""] | bool]:
    """Builds `own wish -> whether any process has one`, the same in every process.

    The answer is an array that nobody has to wait for: read beside the metrics of a
    step, it lets all stop after the same one.
    """
    if jax.process_count() == 1:
        return lambda wish: wish
    spread = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    everywhere = NamedSharding(mesh, PartitionSpec())
    total = jax.jit(lambda flags: flags.sum(), out_shardings=everywhere)
    own = sum(d.process_index == jax.process_index() for d in mesh.devices.flat)

    def ask(wish: bool) -> Int[Array, ""]:
        flags = np.full((own,), wish, np.int32)
        return total(jax.make_array_from_process_local_data(spread, flags))

    return ask
