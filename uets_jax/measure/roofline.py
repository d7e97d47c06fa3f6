"""How well a step uses its machine: model FLOPs utilisation, and what bounds it.

Sources: Williams, Waterman and Patterson 2009, "Roofline: an insightful visual
performance model"; Chowdhery et al. 2022 (PaLM), appendix B, for MFU.
"""

import dataclasses
import math
from typing import Any, Literal

from uets_jax.measure.devices import Device

Bound = Literal["compute", "memory"]


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Rates are FLOP/s over all devices; intensities are FLOP per byte.

    mfu: model FLOPs / seconds / peak_flops.
    achieved_flops: all FLOPs / seconds.
    attainable_flops: min(peak_flops, intensity * bandwidth).
    intensity: FLOPs per byte moved; None (like `bound`) where the bytes are unknown.
    ridge: the intensity from which on the peak is in reach: peak / bandwidth.
    line: all of it in one sentence.
    """

    mfu: float
    achieved_flops: float
    peak_flops: float
    attainable_flops: float
    intensity: float | None
    ridge: float
    bound: Bound | None
    device: str
    peak_source: str
    line: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


def roofline(
    flops_per_step: int | float,
    model_flops_per_step: int | float,
    bytes_per_step: int | float | None,
    seconds_per_step: int | float,
    device: Device,
    dtype: str,
    devices: int = 1,
) -> Roofline:
    """Places a step under the roof of its machine.

    Args:
      flops_per_step: all that the program does, on all devices together.
      model_flops_per_step: the matmul FLOPs of forward and backward alone, without
        recomputation and optimizer.
      bytes_per_step: moved to and from memory, on all devices together; None or 0
        where unknown. XLA's count knows no caches: it is an upper bound.
      seconds_per_step: wall-clock, above 0.
      device, devices: what it ran on, and how many of them.
      dtype: of the matmuls.

    Raises:
      ValueError: no time has passed.
      UserError: the device has no peak for the dtype.
    """
    if not seconds_per_step > 0:
        raise ValueError(f"seconds_per_step is {seconds_per_step}, not above 0")
    peak = device.peak(dtype) * devices
    bandwidth = device.bandwidth_bytes_per_second * devices
    intensity = flops_per_step / bytes_per_step if bytes_per_step else None
    reach = peak if intensity is None else min(peak, intensity * bandwidth)
    found = Roofline(
        mfu=model_flops_per_step / seconds_per_step / peak,
        achieved_flops=flops_per_step / seconds_per_step,
        peak_flops=peak,
        attainable_flops=reach,
        intensity=intensity,
        ridge=peak / bandwidth,
        bound=_bound(intensity, peak / bandwidth),
        device=device.name if devices == 1 else f"{devices} x {device.name}",
        peak_source=device.source.partition(";")[0],
        line="",
    )
    return dataclasses.replace(found, line=_sentence(found, seconds_per_step, dtype))


def _bound(intensity: float | None, ridge: float) -> Bound | None:
    if intensity is None:
        return None
    return "compute" if intensity >= ridge else "memory"


def _sentence(r: Roofline, seconds: int | float, dtype: str) -> str:
    speed = (
        f"{seconds:.3g} s per step: {_si(r.achieved_flops)}FLOP/s, "
        f"{_percent(r.mfu)} MFU of {r.device} "
        f"({_si(r.peak_flops)}FLOP/s {dtype}, {r.peak_source})"
    )
    if r.intensity is None:
        return speed
    return (
        f"{speed}; {r.intensity:.3g} FLOP/byte against a ridge of {r.ridge:.3g}: "
        f"{r.bound}-bound"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.0995 else f"{100 * share:.0f} %"


def _si(value: int | float) -> str:
    value = float(f"{value:.3g}")
    power = 0
    if value >= 1000:
        power = min(math.floor(math.log10(value) / 3 + 1e-9), 6)
    return f"{value / 1000.0**power:.3g} {('', 'k', 'M', 'G', 'T', 'P', 'E')[power]}"
