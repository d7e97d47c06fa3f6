"""The tables of a report that compare runs with one of them."""

from collections.abc import Callable, Sequence

from uets_jax.report import units
from uets_jax.report.blocks import DASH, Block, Cell, Note, Table, cell, filled, ratio
from uets_jax.report.figures import figure, last
from uets_jax.report.ledger import joules
from uets_jax.report.run import Run
from uets_jax.report.scale import number

Format = Callable[[float], str]
COLUMNS: tuple[tuple[str, str, Format], ...] = (
    ("bits_per_byte", "bits per byte", "{:.3f}".format),
    ("tokens", "tokens", units.si),
    ("train_flops", "training FLOPs", units.si),
    ("flops", "FLOPs in all", units.si),
    ("train_seconds", "training time", units.duration),
    ("seconds", "time in all", units.duration),
    ("joules", "energy measured", joules),
)
COSTS: tuple[tuple[str, str, Format], ...] = (
    ("tokens", "tokens", units.si),
    ("flops", "training FLOPs", units.si),
    ("seconds", "training time", units.duration),
    ("joules", "energy measured", joules),
)


def comparison(runs: Sequence[Run], base: int = 0) -> list[Block]:
    """Each run's quality and costs, and how much better than the base's they are."""
    values = [{key: figure(run, key) for key, _, _ in COLUMNS} for run in runs]
    told = Note(
        f"Beside each figure its ratio: {runs[base].name} over the run, so above 1 is "
        "better (that many times less)."
    )
    doubts = [Note(sentence) for sentence in _doubts(runs)]
    return [_compared("comparison", runs, base, values, COLUMNS), told, *doubts]


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


def reach(runs: Sequence[Run], base: int = 0) -> list[Block]:
    """What each run had cost when it was first as good as the base at its end."""
    target = last(runs[base], "bits_per_byte")
    if target is None:
        return []
    costs = [_reached(run, target, [key for key, _, _ in COSTS]) for run in runs]
    told = Note(
        f"Cost at the first validation at or below {target:.3f} bits per byte, where "
        f"{runs[base].name} ended, and its ratio as above. {DASH} means not reached or "
        "not recorded."
    )
    return [told, _compared("cost of equal quality", runs, base, costs, COSTS)]


def _reached(run: Run, target: float, keys: Sequence[str]) -> dict[str, float | None]:
    for record in run.records:
        quality = number(record.get("bits_per_byte"))
        if quality is not None and quality <= target:
            return {key: number(record.get(key)) for key in keys}
    return dict.fromkeys(keys)


def _compared(
    name: str,
    runs: Sequence[Run],
    base: int,
    values: Sequence[dict[str, float | None]],
    columns: Sequence[tuple[str, str, Format]],
) -> Table:
    """One row per run; beside each value the base's over it."""
    rows = []
    for i, run in enumerate(runs):
        cells = [Cell(run.name, "base" if i == base else "", color=i)]
        for key, _, form in columns:
            value = values[i][key]
            small = "" if i == base else ratio(value, values[base][key])
            cells.append(cell(value, form, small))
        rows.append(cells)
    return filled(Table(name, ["run", *(title for _, title, _ in columns)], rows))
