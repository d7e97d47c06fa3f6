"""What a machine can do at most, and what it draws and costs: an editable table.

The shipped table is `devices.json` beside this file; $UETS_DEVICES names a table of
your own in the same form, whose devices replace or join the shipped ones.
"""

import dataclasses
import functools
import json
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from uets_jax.errors import UserError, nearest

SHIPPED = Path(__file__).with_name("devices.json")
DTYPES = ("float32", "bfloat16")
MEASURED = "measured here"
_ROWS = 1024  # of the matrices that are multiplied
_OTHER_CARD = r"(?! ?(?:ti|super|laptop|max-q|nvl|pcie)\b)(?!\w)"


@dataclasses.dataclass(frozen=True)
class Device:
    """One accelerator (or all cores of one CPU), as its maker or a measurement has it.

    flops: dense peak FLOP/s by dtype (`float32` is not TF32).
    memory_bytes, bandwidth_bytes_per_second: of its main memory.
    watts: board or thermal design power.
    dollars_per_hour: typical rent on demand; `source` has the date.
    mfu: the share of the peak that a plain JAX transformer is taken to reach.
    device_kinds: parts of jax's `device_kind` by which it is known.
    source: where the peaks come from; after a semicolon, where the rest does.
    """

    name: str
    label: str
    flops: Mapping[str, float] = dataclasses.field(hash=False)
    memory_bytes: float
    bandwidth_bytes_per_second: float
    watts: float
    dollars_per_hour: float
    mfu: float
    device_kinds: tuple[str, ...]
    source: str
    note: str = ""

    def peak(self, dtype: str) -> float:
        """Dense peak FLOP/s of a dtype.

        Raises:
          UserError: the table has none for it.
        """
        if dtype not in self.flops:
            raise UserError(
                f"device {self.name!r} has no peak for {dtype!r}: "
                + nearest(dtype, self.flops)
            )
        return self.flops[dtype]


def read(table: str = "") -> dict[str, Device]:
    """The shipped devices by name, and those of a table of one's own.

    table: path of a JSON list of objects with the fields of `Device`; empty:
      $UETS_DEVICES, or else none.

    Raises:
      UserError: naming the file, the device and the field that is wrong.
    """
    own = table or os.environ.get("UETS_DEVICES", "")
    shipped = _devices(str(SHIPPED))
    return shipped | _devices(os.path.expanduser(own)) if own else shipped


def find(name: str, table: str = "") -> Device:
    """The device of that name.

    Raises:
      UserError: naming the nearest one; or a table that is wrong.
    """
    known = read(table)
    if name not in known:
        raise UserError(f"unknown device {name!r}: {nearest(name, known)}")
    return known[name]


def current(table: str = "") -> Device | None:
    """The accelerator that jax runs on; None on a CPU or where the table lacks it."""
    import jax

    device = jax.devices()[0]
    if device.platform == "cpu":
        return None
    return _recognised(device.device_kind, read(table).values())


@functools.cache
def measured_cpu() -> Device:
    """This machine's CPU: its peaks and bandwidth measured, once per process.

    A peak is the best of a few jitted matmuls of 1024 rows on all cores; the bandwidth
    that of a copy of 64 MiB by one core, reads and writes counted. It takes some 0.4 s.
    Watts, rent and MFU remain the table's `cpu`; so does everything where
    jax was started without its CPU backend.
    """
    import jax

    assumed = find("cpu")
    try:
        cpu = jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return assumed
    return dataclasses.replace(
        assumed,
        label=f"CPU, {len(os.sched_getaffinity(0))} cores",
        flops={dtype: _matmul_peak(cpu, dtype) for dtype in DTYPES},
        memory_bytes=float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")),
        bandwidth_bytes_per_second=_copy_bandwidth(),
        source=f"{MEASURED}; watts, price and mfu from {SHIPPED.name}",
    )


def _recognised(kind: str, devices: Any) -> Device | None:
    """The device with the longest name in `kind` that isn't part of another card's."""
    found = [
        (len(part), device)
        for device in devices
        for part in device.device_kinds
        if re.search(rf"(?<!\w){re.escape(part)}{_OTHER_CARD}", kind, re.IGNORECASE)
    ]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _matmul_peak(cpu: Any, dtype: str) -> float:
    import jax
    import jax.numpy as jnp

    x = jax.device_put(np.ones((_ROWS, _ROWS), jnp.dtype(dtype)), cpu)
    multiply = jax.jit(jnp.matmul)
    return 2 * _ROWS**3 / _quickest(lambda: multiply(x, x).block_until_ready(), 6)


def _copy_bandwidth() -> float:
    source, target = np.ones(2**24, np.float32), np.empty(2**24, np.float32)
    return 2 * source.nbytes / _quickest(lambda: np.copyto(target, source), 5)


def _quickest(run: Callable[[], Any], times: int) -> float:
    """Seconds of the quickest call; the first may compile."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _devices(path: str) -> dict[str, Device]:
    try:
        rows = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: broken JSON ({error})") from None
    if not isinstance(rows, list):
        raise UserError(f"{path}: expected a list of devices, like {SHIPPED}")
    devices: dict[str, Device] = {}
    for number, row in enumerate(rows, 1):
        device = _device(row, f"{path}: device {number}")
        if device.name in devices:
            raise UserError(f"{path}: two devices are called {device.name!r}")
        devices[device.name] = device
    return devices


def _device(row: Any, where: str) -> Device:
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected an object, got {row!r:.40}")
    if isinstance(row.get("name"), str) and row["name"]:
        where = f"{where} ({row['name']})"
    fields = {f.name: f for f in dataclasses.fields(Device)}
    for key in row:
        if key not in fields:
            raise UserError(f"{where}: unknown field {key!r}: {nearest(key, fields)}")
    values = {"note": "", **row}
    for key in fields:
        if key not in values:
            raise UserError(f"{where}: the field {key!r} is missing")
        fits, wanted = _CHECKS.get(key, _POSITIVE)
        if not fits(values[key]):
            raise UserError(f"{where}: {key}: give {wanted}, not {values[key]!r:.40}")
    return Device(**{key: _plain(value) for key, value in values.items()})


def _plain(value: Any) -> Any:
    """Numbers as floats, lists as tuples."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return tuple(value)
    return value if isinstance(value, str) else float(value)


def _number(value: Any) -> bool:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and math.isfinite(value)


def _positive(value: Any) -> bool:
    return _number(value) and value > 0


def _is_peaks(value: Any) -> bool:
    named = isinstance(value, dict) and set(DTYPES) <= set(value)
    return named and all(map(_positive, value.values()))


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) and v for v in value)


_POSITIVE = (_positive, "a number above 0")
_TEXT = (lambda value: isinstance(value, str) and value, "a text")
_CHECKS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "name": _TEXT,
    "label": _TEXT,
    "source": _TEXT,
    "note": (lambda value: isinstance(value, str), "a text"),
    "flops": (_is_peaks, "an object with FLOP/s for float32 and bfloat16"),
    "dollars_per_hour": (lambda v: _number(v) and v >= 0, "a number from 0"),
    "mfu": (lambda v: _positive(v) and v <= 1, "a share above 0, up to 1"),
    "device_kinds": (_is_names, "a list of texts"),
}
