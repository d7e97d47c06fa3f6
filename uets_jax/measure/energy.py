"""Joules: measured by NVIDIA's own counter, or an estimate that says so.

The two are never mixed: the meter knows no estimate, an estimate is no reading.
"""

from typing import Any

from uets_jax.measure.devices import Device


class EnergyMeter:
    """Sums the energy counters of all NVIDIA GPUs of this host.

    `source` is "nvml" or "none"; `joules()` is None without a counter.
    """

    def __init__(self) -> None:
        self._nvml, self._devices = _open()
        self.source = "nvml" if self._devices else "none"
        self._start = self._read()

    def joules(self) -> float | None:
        """Energy drawn since construction, in joules."""
        now = self._read()
        return None if now is None or self._start is None else now - self._start

    def _read(self) -> float | None:
        if not self._devices:
            return None
        try:
            read = self._nvml.nvmlDeviceGetTotalEnergyConsumption
            return sum(read(device) for device in self._devices) / 1000.0
        except self._nvml.NVMLError:
            self.source, self._devices = "none", []
            return None


def estimate(
    device: Device, seconds: int | float, devices: int = 1
) -> tuple[float, str]:
    """Joules at full board power all the time, and a text that calls them estimated."""
    times = f"{devices} x " if devices != 1 else ""
    method = (
        f"estimate: {times}{device.watts:g} W (TDP of {device.name} in devices.json) "
        f"x {_seconds(seconds)} s; not measured"
    )
    return float(devices * device.watts * seconds), method


def _seconds(seconds: int | float) -> str:
    return f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.2g}"


def _open() -> tuple[Any, list[Any]]:
    try:
        import pynvml  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None, []
    try:
        pynvml.nvmlInit()
        devices = range(pynvml.nvmlDeviceGetCount())
        return pynvml, [pynvml.nvmlDeviceGetHandleByIndex(i) for i in devices]
    except pynvml.NVMLError:
        return pynvml, []
