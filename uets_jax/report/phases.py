"""The speed of each phase of a run: MFU and roofline."""

from collections.abc import Callable, Sequence
from typing import Any

from uets_jax.report import units
from uets_jax.report.blocks import DASH, Block, Cell, Note, Table, cell, filled
from uets_jax.report.run import Run
from uets_jax.report.scale import number

Format = Callable[[float], str]
PHASE: tuple[tuple[str, str, Format], ...] = (
    ("steps", "steps", "{:.0f}".format),
    ("end", "until step", "{:.0f}".format),
    ("seconds_per_step", "time per step", units.duration),
    ("mfu", "MFU", lambda v: f"{100 * v:.3g}%"),
    ("achieved_flops", "FLOP/s", units.si),
    ("intensity", "FLOPs per byte", "{:.3g}".format),
)

LIMITS = {
    "achieved_flops": ("peak_flops", "peak"),
    "intensity": ("ridge", "ridge"),
}


def phases(runs: Sequence[Run]) -> list[Block]:
    """Speed, MFU and roofline of each phase, then what each one says in a sentence."""
    rows, lines = [], []
    for i, run in enumerate(runs):
        color = i if len(runs) > 1 else None
        for n, phase in enumerate(_listed(run)):
            where = str(phase.get("phase", n))
            figures = [_of_phase(phase, key, form) for key, _, form in PHASE]
            words = [str(phase.get(k) or DASH) for k in ("bound", "device")]
            name = Cell(run.name, color=color)
            rows.append([name, Cell(where), *figures, *map(Cell, words)])
            who = f"{run.name}, phase {where}: " if color is not None else ""
            source = phase.get("peak_source")
            peak = f" Peak: {source}." if source else ""
            lines += [Note(f"{who}{phase['line']}{peak}")] if phase.get("line") else []
    if not rows:
        return []
    head = ["run", "phase", *(name for _, name, _ in PHASE), "bound by", "device"]
    first = 0 if len(runs) > 1 else 1
    table = Table("phases", head[first:], [row[first:] for row in rows])
    return [filled(table), *lines]


def _of_phase(phase: dict[str, Any], key: str, form: Format) -> Cell:
    """A figure of a phase, beside it what it is measured against."""
    against, word = LIMITS.get(key, ("", ""))
    limit = number(phase.get(against))
    small = "" if limit is None else f"{word} {form(limit)}"
    return cell(number(phase.get(key)), form, small)


def _listed(run: Run) -> list[dict[str, Any]]:
    found = run.summary.get("phases")
    return [p for p in found if isinstance(p, dict)] if isinstance(found, list) else []
