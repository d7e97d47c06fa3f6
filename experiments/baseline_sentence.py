"""The sentence of the README that says which number the project has to beat."""

import math
from collections.abc import Sequence
from typing import Any

Rows = Sequence[dict[str, Any]]


def sentence(baselines: Rows, targets: Rows) -> str:
    """One paragraph from the rows of `foundation.baselines` and `foundation.targets`.

    Tracks whose T2 was not measured are left out.
    """
    parts = []
    for target in targets:
        if target["target"] == "T2":
            row = next(
                row
                for row in baselines
                if all(row[key] == target[key] for key in ("arm", "track", "mode"))
            )
            parts.append(_part(target, row))
    return (
        "**The number to beat is T2**, what known recipes reach with U: "
        f"{'; '.join(parts)}. The standard recipe is not the yardstick: a factor over "
        "b0 that is no larger than theirs is no progress."
    )


def _part(target: dict[str, Any], row: dict[str, Any]) -> str:
    mode = f" ({target['mode']})" if target["mode"] else ""
    ratio, low, high = (
        row[f"flops_ratio_b0{end}"] for end in ("", "_t_low", "_t_high")
    )
    found = f"{target['bits_per_byte']:.3f} bits per byte on {target['track']}"
    by = f"by `{target['arm']}`{mode}"
    if ratio is None:
        least = math.floor(row["flops_ratio_b0_ci_low"])
        return f"{found} {by}, which needs over {least} times fewer FLOPs than b0"
    ends = "" if high is None else f" [{low:.1f}, {high:.1f}]"
    return f"{found} {by}, which needs {ratio:.1f}{ends} times fewer FLOPs than b0"
