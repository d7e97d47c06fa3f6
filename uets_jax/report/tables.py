"""The tables of a report that count: comparison of runs, cost by category."""

from collections.abc import Callable, Sequence

from uets_jax.report import units
from uets_jax.report.markup import DASH, TIMES, escape, note, table
from uets_jax.report.run import Run, figure, last, number, parts
from uets_jax.report.svg import COLORS

Format = Callable[[float], str]
COLUMNS: tuple[tuple[str, str, Format], ...] = (
    ("tokens", "tokens", units.si),
    ("train_flops", "training FLOPs", units.si),
    ("train_seconds", "training time", units.duration),
    ("seconds", "time in all", units.duration),
    ("bits_per_byte", "bits per byte", lambda v: f"{v:.3f}"),
)


def comparison(runs: Sequence[Run]) -> str:
    """Each run's costs and quality, and their ratio to the first run's."""
    rows = []
    for i, run in enumerate(runs):
        cells = [run_name(runs, i)]
        for key, _, form in COLUMNS:
            cells.append(_with_ratio(figure(run, key), figure(runs[0], key), form, i))
        rows.append(cells)
    shown = table(["run", *(name for _, name, _ in COLUMNS)], rows, "figures")
    return shown + "".join(note(sentence) for sentence in _doubts(runs))


def _doubts(runs: Sequence[Run]) -> list[str]:
    """Why some of the figures may not be compared."""
    said = []
    if _differ(runs, "corpus_sha256"):
        said.append(
            "The corpora differ: bits per byte are comparable only if the "
            "validation texts are the same."
        )
    if _differ(runs, "tokenizer_sha256"):
        said.append(
            "The tokenizers differ: losses and perplexities per token are not "
            "comparable, bits per byte are."
        )
    return said


def _differ(runs: Sequence[Run], key: str) -> bool:
    """Whether the runs that have `key` in their summary have different values there."""
    return len({str(run.summary.get(key)) for run in runs} - {"None"}) > 1


def reach(runs: Sequence[Run]) -> str:
    """What each run had cost when it was first as good as the first run at its end."""
    target = last(runs[0], "bits_per_byte")
    if target is None:
        return ""
    keys = (
        ("tokens", "tokens", units.si),
        ("flops", "training FLOPs", units.si),
        ("seconds", "training time", units.duration),
    )
    costs = [_reached(run, target, [key for key, _, _ in keys]) for run in runs]
    rows = [
        [run_name(runs, i)]
        + [_with_ratio(c[k], costs[0][k], form, i) for k, _, form in keys]
        for i, c in enumerate(costs)
    ]
    told = note(
        f"Cost at the first validation at or below {target:.3f} bits per byte, where "
        f"{runs[0].name} ended. {DASH} means not reached or not recorded."
    )
    return told + table(["run", *(name for _, name, _ in keys)], rows, "figures")


def _reached(run: Run, target: float, keys: Sequence[str]) -> dict[str, float | None]:
    for record in run.records:
        quality = number(record.get("bits_per_byte"))
        if quality is not None and quality <= target:
            return {key: number(record.get(key)) for key in keys}
    return dict.fromkeys(keys)


def run_name(runs: Sequence[Run], i: int) -> str:
    """The name of run `i` behind a swatch of its colour."""
    return f'<span class="swatch c{i % COLORS}"></span>{escape(runs[i].name)}'


def _with_ratio(value: float | None, base: float | None, form: Format, row: int) -> str:
    if value is None:
        return DASH
    ratio = f"<small>{value / base:.3g}{TIMES}</small>" if row and base else ""
    return f"{form(value)}{ratio}"


def breakdown(runs: Sequence[Run], key: str, name: str, form: Format) -> str:
    """`summary[key]` by category, largest first, with each one's share of the run."""
    tables = [parts(run, key) for run in runs]
    if not any(tables):
        return note(f"No {name} by category: the summary doesn't hold them.")
    weight = lambda category: -max(t.get(category, 0.0) for t in tables)
    categories = sorted({c for t in tables for c in t}, key=lambda c: (weight(c), c))
    rows = [
        [escape(c), *(_share(tables, i, c, form) for i in range(len(runs)))]
        for c in categories
    ]
    rows.append(["total", *(form(sum(t.values())) if t else DASH for t in tables)])
    head = [name, *(escape(run.name) for run in runs)] if len(runs) > 1 else [name, ""]
    return table(head, rows, "figures shares")


def _share(
    tables: Sequence[dict[str, float]], i: int, category: str, form: Format
) -> str:
    """The cost of a category in run `i`, its share in figures and as a bar."""
    value, total = tables[i].get(category), sum(tables[i].values())
    if value is None:
        return DASH
    share = min(1.0, max(0.0, value / total)) if total > 0 else 0.0
    bar = f'<i style="width:{100 * share:.1f}%"></i>'
    return (
        f"{form(value)}<small>{share:.1%}</small>"
        f'<span class="bar c{i % COLORS}">{bar}</span>'
    )
