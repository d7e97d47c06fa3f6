"""What a result was measured on: machine class, versions, commit, peak memory."""

import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

import jax

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "uets_jax")


def machine() -> str:
    """The class of machine, such as `cpu-2` (two cores) or `h100-1`."""
    devices = jax.devices()
    if devices[0].platform == "cpu":
        return f"cpu-{len(os.sched_getaffinity(0))}"
    kind = devices[0].device_kind.lower()
    short = next((k for k in ("h200", "h100", "a100", "v5e", "v6e") if k in kind), kind)
    return f"{short.replace(' ', '-')}-{len(devices)}"


def versions() -> dict[str, str]:
    """Python's and the core packages' versions."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The commit of the checkout that this package runs from, `-dirty` if changed.

    Changes in `results/` don't count: a command may write several records.
    """
    here = Path(__file__).resolve().parent
    try:
        run = lambda *args: subprocess.run(
            ["git", "-C", str(here), *args],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
        if Path(run("rev-parse", "--show-toplevel")).resolve() != here.parent.parent:
            return None
        where = ("--", ":/", ":(top,exclude)results")
        changed = run("status", "--porcelain", "--untracked-files=no", *where)
        return run("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def peak_device_bytes() -> int | None:
    """Peak of the accelerators' memory in use in this process; None on a CPU."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    peaks = [s["peak_bytes_in_use"] for s in stats if s and "peak_bytes_in_use" in s]
    return sum(peaks) if peaks else None


def peak_rss_bytes() -> int:
    """Peak of this process's resident memory."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def live_array_bytes() -> int:
    """Bytes of all arrays that this process holds, each copy on its own device."""
    shards = (s for array in jax.live_arrays() for s in array.addressable_shards)
    return sum(shard.data.nbytes for shard in shards)
