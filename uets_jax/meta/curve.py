"""The live curve of meta-training: a picture that is drawn again after every line."""

from collections.abc import Mapping, Sequence
from typing import Any

from uets_jax.report.axis import Axis
from uets_jax.report.figure import HEIGHT, WIDTH, joined
from uets_jax.report.scale import Point
from uets_jax.report.style import COLORS
from uets_jax.report.svg import Series, chart

Row = Mapping[str, Any]
POINTS = 40  # of a smoothed curve


def picture(rows: Sequence[Row]) -> str:
    """An SVG file: the value of each family's windows, and the validations.

    Args:
      rows: lines of `meta.jsonl`.
    """
    updates = [r for r in rows if "family" in r and r["value"] is not None]
    families = list(dict.fromkeys(r["family"] for r in updates))
    learned = [
        Series(
            smoothed([r for r in updates if r["family"] == name]),
            place % COLORS,
            "line",
            name.partition("/")[0],
        )
        for place, name in enumerate(families)
    ]
    checks = [r for r in rows if r.get("event") == "validation"]
    held = [
        Series(
            [(float(r["update"]), r[name]["mean"]) for r in checks],
            place,
            "marks",
            name,
        )
        for place, name in enumerate(("theta", "mean"))
    ]
    below = Axis("e-folds of steps, less is better", pad=0.05)
    x, titles = Axis("update", zero=True), ("families that are learned on", "held out")
    sides = (learned, held)
    charts = [
        (title, chart(side, x, below, title, (WIDTH, HEIGHT)))
        for title, side in zip(titles, sides, strict=True)
    ]
    return joined(charts)


def smoothed(rows: Sequence[Row]) -> list[Point]:
    """Means of values over equal numbers of neighbouring rows."""
    size = -(-len(rows) // POINTS)
    parts = [rows[i : i + size] for i in range(0, len(rows), max(1, size))]
    mean = lambda part, key: sum(float(r[key]) for r in part) / len(part)
    return [(mean(part, "update"), mean(part, "value")) for part in parts]
