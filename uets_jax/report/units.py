"""Numbers as people read them: SI prefixes, durations, memory."""

import math

PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z", "Y", "R", "Q")
TIME_UNITS = (("s", 1.0, 120.0), ("min", 60.0, 7200.0), ("h", 3600.0, 172800.0))
DAY = 86400.0


def si(value: int | float, digits: int = 3, gap: str = "") -> str:
    """`value` to `digits` significant digits with a prefix: 1.64M, 0.0123, 2e-5.

    `gap` stands between the number and its prefix, also where that is empty.
    """
    value = float(f"{value:.{digits}g}")
    if not math.isfinite(value):
        return f"{value}{gap}"
    power = 0
    if abs(value) >= 1000:
        power = min(math.floor(math.log10(abs(value)) / 3 + 1e-9), 10)
    scaled = value / 1000.0**power
    if abs(scaled) >= 1000 and power == 0:
        scaled, power = scaled / 1000, 1
    if 0 < abs(scaled) < 1e-4 or abs(scaled) >= 1e4:
        mantissa, exponent = f"{scaled:.{digits - 1}e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        number = f"{mantissa}e{int(exponent)}"
    else:
        number = f"{scaled:.{max(digits, 4)}g}"
    return f"{number}{gap}{PREFIXES[power]}"


def flops(value: int | float) -> str:
    """Floating point operations: `1.23 PFLOPs`."""
    return si(value, gap=" ") + "FLOPs"


def duration(seconds: int | float) -> str:
    """Two units at most: `0.42 s`, `12.3 s`, `3 min 20 s`, `2 h 05 min`, `1 d 03 h`."""
    if seconds < 59.95:
        return f"{float(f'{seconds:.3g}'):.10g} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24:02d} h"


def clock(seconds: int | float) -> str:
    """`0:52`, `12:03`, `1:02:03`."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours}:{minutes:02d}:{whole % 60:02d}"
    return f"{minutes}:{whole % 60:02d}"


def memory(value: int | float) -> str:
    """Bytes with a binary prefix: `512 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1023.5:
            return f"{float(f'{value:.4g}'):.10g} {unit}"
        value /= 1024
    return f"{float(f'{value:.4g}'):.10g} TiB"


def time_unit(longest: float) -> tuple[str, float]:
    """The unit for an axis that ends at `longest` seconds, and its seconds."""
    for name, seconds, until in TIME_UNITS:
        if longest < until:
            return name, seconds
    return "d", DAY
