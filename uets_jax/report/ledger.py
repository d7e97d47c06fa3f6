"""What a run cost: FLOPs and seconds by category, bytes, energy, rooflines."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from uets_jax.report import units
from uets_jax.report.blocks import (
    DASH,
    Block,
    Cell,
    Note,
    Pair,
    Table,
    cell,
    filled,
    ratio,
)
from uets_jax.report.figures import parts
from uets_jax.report.run import Run
from uets_jax.report.scale import number

Format = Callable[[float], str]
BYTES = {
    "step_arguments": "arguments of the step",
    "step_temporaries": "temporaries of the step",
    "step_outputs": "outputs of the step",
    "step_peak": "peak of the step, as compiled",
    "live_arrays": "live arrays",
    "device_peak": "peak on the device",
    "rss_peak": "peak of the process (RSS)",
}


class Entry(NamedTuple):
    """One category of a ledger; shares are of the run and of the category."""

    value: float
    share: float
    matmul: float | None
    transcendentals: float | None


def entries(run: Run, key: str) -> dict[str, Entry]:
    """`summary[key]` by category, with its total, where it isn't empty."""
    counted = ("matmul_flops", "transcendentals") if key == "flops" else ("", "")
    spent, inner, functions = (_renamed(parts(run, k), key) for k in (key, *counted))
    if not spent:
        return {}
    total = sum(spent.values())

    def entry(value: float, matmul: float | None, functions: float | None) -> Entry:
        share = value / total if total > 0 else 0.0
        within = matmul / value if matmul is not None and value > 0 else None
        return Entry(value, share, within, functions)

    found = {c: entry(v, inner.get(c), functions.get(c)) for c, v in spent.items()}
    sums = [sum(t.values()) if t else None for t in (inner, functions)]
    return {**found, "total": entry(total, *sums)}


def _renamed(spent: dict[str, float], key: str) -> dict[str, float]:
    """FLOPs under today's categories: runs of old called the first one "train"."""
    if key != "flops" or "forward_backward" in spent:
        return spent
    return {{"train": "forward_backward"}.get(c, c): v for c, v in spent.items()}


def breakdown(
    runs: Sequence[Run], base: int, key: str, name: str, form: Format
) -> Block:
    """One row per category, largest first; a run alone has its shares in columns."""
    tables = [entries(run, key) for run in runs]
    largest = lambda c: max(t[c].value for t in tables if c in t)
    known = dict.fromkeys(c for t in tables for c in t)
    categories = sorted(known, key=lambda c: (c == "total", -largest(c), c))
    categories = [c for c in categories if largest(c) > 0 or c == "total"]
    if len(categories) < 2:
        return Note(f"No {name} by category: the summary doesn't hold them.")
    title = f"{name} by category"
    if len(runs) == 1:
        rows = [_row(c, tables[0][c], form) for c in categories]
        head = ("category", name, "share", "matmul share", "transcendentals")
        return filled(Table(title, head, rows, "shares"))
    totals = [t["total"].value if t else None for t in tables]
    ratios = ["" if i == base else ratio(v, totals[base]) for i, v in enumerate(totals)]
    rows = [
        [_name(c), *(_beside(t.get(c), form, i) for i, t in enumerate(tables))]
        for c in categories[:-1]
    ]
    rows.append([Cell("total"), *map(cell, totals, [form] * len(runs), ratios)])
    return Table(title, [name, *(run.name for run in runs)], rows, "shares")


def _name(category: str) -> Cell:
    return Cell(category.replace("_", " "))


def _row(category: str, entry: Entry, form: Format) -> list[Cell]:
    bar = None if category == "total" else entry.share
    return [
        _name(category),
        Cell(form(entry.value)),
        Cell(f"{entry.share:.1%}", color=0 if bar is not None else None, share=bar),
        cell(entry.matmul, "{:.1%}".format),
        cell(entry.transcendentals, units.si),
    ]


def _beside(entry: Entry | None, form: Format, color: int) -> Cell:
    """Cost, share and matmul share in one cell: there is a column for each run."""
    if entry is None:
        return Cell(DASH)
    inner = "" if entry.matmul is None else f", {entry.matmul:.0%} matmul"
    small = f"{entry.share:.1%}{inner}"
    return Cell(form(entry.value), small, color=color, share=entry.share)


def costs(runs: Sequence[Run], base: int) -> list[Block]:
    """FLOPs and seconds by category, with shares."""
    work = breakdown(runs, base, "flops", "FLOPs", units.si)
    time = breakdown(runs, base, "seconds", "time", units.duration)
    sources = [run.summary.get("flops_source") for run in runs]
    told = "; ".join(dict.fromkeys(str(s) for s in sources if s))
    return [work, *([Note(f"How FLOPs are counted: {told}.")] if told else []), time]


def resources(runs: Sequence[Run], base: int) -> list[Block]:
    """Memory and energy; side by side for a run alone."""
    found = [memory(runs), *energy(runs, base)]
    notes = [block for block in found if isinstance(block, Note)]
    others = [block for block in found if not isinstance(block, Note)]
    return [*([Pair(others)] if len(runs) == 1 else others), *notes]


def memory(runs: Sequence[Run]) -> Block:
    """Bytes of the step, of the arrays and of the process."""
    tables = [parts(run, "bytes") for run in runs]
    for table, run in zip(tables, runs, strict=True):
        peak = number(run.summary.get("peak_memory_bytes"))
        if peak is not None:
            table.setdefault("rss_peak", peak)
    keys = dict.fromkeys([*BYTES, *(key for table in tables for key in table)])
    rows = [
        [Cell(BYTES.get(k, k.replace("_", " "))), *_sizes(tables, k)]
        for k in keys
        if any(k in table for table in tables)
    ]
    if not rows:
        return Note("No memory figures: the summary doesn't hold them.")
    head = ["memory", *(run.name for run in runs)] if len(runs) > 1 else ["memory", ""]
    return Table("memory", head, rows)


def _sizes(tables: Sequence[dict[str, float]], key: str) -> list[Cell]:
    return [cell(table.get(key), units.memory) for table in tables]


def energy(runs: Sequence[Run], base: int) -> list[Block]:
    """Joules where they were measured, and apart from them an estimate."""
    if not any(run.summary for run in runs):
        return []
    measured = [number(run.summary.get("joules")) for run in runs]
    first = [Cell("measured"), *map(_measured, runs, measured)]
    rows = [first]
    guessed = [number(run.summary.get("joules_estimate")) for run in runs]
    if any(value is not None for value in guessed):
        rows.append(
            [Cell("estimate, not measured"), *(cell(v, joules) for v in guessed)]
        )
    for i, value in enumerate(measured):
        if i != base and (told := ratio(value, measured[base])):
            first[i + 1] = first[i + 1]._replace(small=told)
    head = ["energy", *(run.name for run in runs)] if len(runs) > 1 else ["energy", ""]
    methods = [run.summary.get("joules_estimate_method") for run in runs]
    told = dict.fromkeys(str(m) for m in methods if m)
    return [
        Table("energy", head, rows),
        *(Note(f"How energy is estimated: {method}") for method in told),
    ]


def joules(value: float) -> str:
    """`1.2 kJ`."""
    return f"{units.si(value, gap=' ')}J"


def _measured(run: Run, value: float | None) -> Cell:
    source = run.summary.get("energy_source")
    if value is None:
        return Cell("not measured")
    return Cell(joules(value) + (f" ({source})" if source else ""))
