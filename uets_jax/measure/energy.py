"""Joules, only where a meter is: NVIDIA's own counter. Never seconds times a guess."""

from typing import Any


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
