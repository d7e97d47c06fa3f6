"""How many times less runs had cost than their baseline at the same loss, over time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from uets_jax.report.axis import Axis
from uets_jax.report.blocks import (
    DASH,
    TIMES,
    Block,
    Cell,
    Heading,
    Note,
    Picture,
    Table,
    filled,
)
from uets_jax.report.figures import pairs
from uets_jax.report.run import Record, Run
from uets_jax.report.scale import number
from uets_jax.report.svg import Series, chart

ROWS = 8  # of a run
SIZE = (912, 280)
COLUMNS = {
    "flops": "FLOPs",
    "tokens": "tokens",
    "seconds": "time",
    "joules": "energy",
    "bytes": "peak memory",
}
SIGNS = {"": "", "_above": ">", "_below": "<"}
TOLD = (
    "Cost of the baseline when it was first as good, over the run's own cost so far: "
    "above 1 is better. The baseline's rate never decays; its losses are smoothed as "
    "the run's are. Beyond its ends there are bounds only (> and <)."
)
DECAYS = (
    "While the run's own rate decays it gains from that, too, and the baseline does "
    "not: these rows are marked."
)


def ahead(runs: Sequence[Run]) -> list[Block]:
    """A chart of the FLOPs ratio and some rows of each run; nothing without any."""
    found = [_compared(run) for run in runs]
    if not any(found):
        return []
    some = [run._replace(records=f) for run, f in zip(runs, found, strict=True)]
    curves = [
        Series(pairs(run, "flops", "ahead_flops"), i) for i, run in enumerate(some)
    ]
    blocks: list[Block] = []
    if any(len(curve.points) > 1 for curve in curves):
        blocks.append(Picture(lambda: _chart(curves)))
    names = dict.fromkeys(_baseline(run) for run in some if run.records)
    blocks.append(Note(f"Against {', '.join(names)}. {TOLD}"))
    for run, records in zip(runs, found, strict=True):
        head = [Heading(run.name)] if len(runs) > 1 and records else []
        blocks += [*head, *([_table(run, records)] if records else [])]
    decays = any(r.get("ahead_decays") for records in found for r in records)
    return [*blocks, Note(DECAYS)] if decays else blocks


def _compared(run: Run) -> list[Record]:
    """The records with a ratio: of steps, or of validations where no step has one."""
    has = lambda r: any(f"ahead_flops{end}" in r for end in SIGNS)
    records = [r for r in run.records if has(r)]
    return [r for r in records if "loss" in r] or records


def _chart(curves: Sequence[Series]) -> str:
    x, y = Axis("training FLOPs", zero=True), Axis("times less FLOPs", pad=0.04)
    svg = chart(curves, x, y, "times less FLOPs than the baseline", SIZE)
    caption = "<figcaption>Ahead of the baseline, undecayed</figcaption>"
    return f"<figure>{caption}{svg}</figure>"


def _table(run: Run, records: Sequence[Record]) -> Table:
    """Rows that lie evenly in the logarithm of their number, the last one included."""
    marks = np.geomspace(1, len(records), min(ROWS, len(records)))
    shown = [records[i] for i in sorted({round(m) - 1 for m in marks})]
    head = ("step", *COLUMNS.values(), "")
    rows = [_row(record) for record in shown]
    return filled(Table(f"ahead of {_baseline(run)}", head, rows, "figures"))


def _row(record: Record) -> list[Cell]:
    cells = [Cell(_ratio(record, name) or DASH) for name in COLUMNS]
    step = Cell(str(record.get("step", DASH)))
    return [step, *cells, Cell("decays" if record.get("ahead_decays") else "")]


def _ratio(record: Record, name: str) -> str:
    for end, sign in SIGNS.items():
        value = number(record.get(f"ahead_{name}{end}"))
        if value is not None:
            return f"{sign}{value:.3g}{TIMES}"
    return ""


def _baseline(run: Run) -> str:
    """Its name, or that of its file while the run has no summary."""
    told = (run.summary.get("baseline") or {}).get("name")
    path = (run.config.get("train") or {}).get("baseline")
    return str(told or Path(str(path or "the baseline")).stem)
