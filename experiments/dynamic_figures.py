"""Figures of growth, from its records.

    python -m experiments.dynamic_figures             writes results/growth_*.svg
    python -m experiments.dynamic_figures --check     exit code 1 if one is stale

`growth_target.svg`: bits per byte against FLOPs of every arm, the static sizes among
them; `growth_moments.svg`: what happens after a growth when moments are not carried.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.records import RESULTS, read_record
from experiments.script import ended
from uets_jax.errors import EXIT_OK
from uets_jax.report.axis import Axis
from uets_jax.report.figure import HEIGHT, WIDTH, joined
from uets_jax.report.files import replace_text
from uets_jax.report.scale import Point
from uets_jax.report.svg import Series, chart

Row = Mapping[str, Any]
EXIT_STALE = 1
ARMS = {  # colours; the rest are not drawn
    "static": 0,
    "static 1": 2,
    "static 2": 5,
    "grow_fixed": 1,
    "grow_trigger": 3,
    "grow_learned": 4,
    "grow_random": 6,
}
NAMES = {"static": "static, 4 layers", "static 1": "1 layer", "static 2": "2 layers"}
MOMENTS = {"muon template": 5, "muon reset": 0, "adamw template": 4, "adamw reset": 1}


def target(results: Path) -> str:
    """Loss against FLOPs, a panel for each number of tokens per parameter.

    Where the single runs are not on record, an arm has two points: its least budget,
    and the budget at which it reaches the static model's loss.

    Raises:
      UserError: without the records `growth.target` and `growth.target_runs`.
    """
    runs = read_record("growth.target_runs", results)["rows"]
    arms = read_record("growth.target", results)["rows"]
    panels = []
    for per_param in sorted({row["tokens_per_param"] for row in arms}):
        of = lambda rows, p=per_param: [r for r in rows if r["tokens_per_param"] == p]
        draw = curve if of(runs) else two_points
        here = of(runs) or of(arms)
        found = [
            Series(draw(here, arm), color, "marks", NAMES.get(arm, arm))
            for arm, color in ARMS.items()
        ]
        title = f"{per_param} tokens per parameter"
        axes = Axis("training FLOPs", zero=True), Axis("bits per byte", pad=0.05)
        panels.append((title, chart(found, *axes, title, (WIDTH, HEIGHT))))
    return joined(panels)


def curve(rows: Sequence[Row], arm: str) -> list[Point]:
    """Mean FLOPs and bits per byte of each budget, from small to large."""
    mine = [row for row in rows if row["arm"] == arm]
    shares = sorted({row["share"] for row in mine})
    mean = lambda key, share: float(
        np.mean([row[key] for row in mine if row["share"] == share])
    )
    return [(mean("total_flops", s), mean("bits_per_byte", s)) for s in shares]


def two_points(rows: Sequence[Row], arm: str) -> list[Point]:
    """The least budget, and that at which the static model's loss is reached."""
    [goal] = [r["bits_per_byte_equal_tokens"] for r in rows if r["arm"] == "static"]
    [row] = [r for r in rows if r["arm"] == arm] or [{}]
    pairs = [
        (row.get("flops_least_budget"), row.get("bits_per_byte_least_budget")),
        (row.get("flops_to_target"), goal),
    ]
    return sorted((x, y) for x, y in dict.fromkeys(pairs) if x is not None)


def moments(results: Path) -> str:
    """The gap to carried moments after a growth.

    Raises:
      UserError: without the record `growth.moments_curve`.
    """
    rows = read_record("growth.moments_curve", results)["rows"]
    found = [
        Series(
            [(float(row["step"]), row["gap"]) for row in rows if row["arm"] == arm],
            color,
            "line",
            arm,
        )
        for arm, color in MOMENTS.items()
    ]
    axes = Axis("steps after growth", zero=True), Axis("nats above `carry`", pad=0.05)
    title = "Training loss after growth, less that with carried moments"
    return joined([(title, chart(found, *axes, title, (WIDTH + 160, HEIGHT)))])


FIGURES: dict[str, Callable[[Path], str]] = {
    "growth_target": target,
    "growth_moments": moments,
}


def stale(results: Path) -> list[str]:
    """Names of the figures that differ from their records, or are not there."""
    paths = {name: results / f"{name}.svg" for name in FIGURES}
    old = {n: p.read_text("utf-8") if p.exists() else "" for n, p in paths.items()}
    return [name for name, make in FIGURES.items() if old[name] != make(results)]


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.dynamic_figures")
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(argv)
    return ended("dynamic_figures", lambda: run(given.results, given.check))


def run(results: Path, check: bool) -> int:
    """Writes what is stale, or says so."""
    names = stale(results)
    for name in names:
        path = results / f"{name}.svg"
        if check:
            print(f"{path}: stale; run python -m experiments.dynamic_figures")
        else:
            print(replace_text(path, FIGURES[name](results)))
    return EXIT_STALE if check and names else EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
