"""The order of a report: what is said first, what is shown, what is listed."""

from collections.abc import Sequence

from uets_jax.report import (
    ahead,
    curves,
    events,
    facts,
    growth,
    ledger,
    phases,
    tables,
    units,
    values,
)
from uets_jax.report.blocks import (
    DASH,
    Block,
    Page,
    Picture,
    Section,
    Tile,
)
from uets_jax.report.figures import figure
from uets_jax.report.run import Run
from uets_jax.report.scale import number


def page(runs: Sequence[Run], base: int = 0) -> Page:
    """The report of some runs, compared with run number `base`."""
    alone = len(runs) == 1
    who = (lambda run: "") if alone else (lambda run: f"{run.name}: ")
    compared = [] if alone else tables.comparison(runs, base)
    reached = [] if alone else tables.reach(runs, base)
    return Page(
        title=runs[0].name if alone else f"Comparison of {len(runs)} runs",
        lead=lead(runs),
        warnings=[who(run) + note for run in runs for note in run.notes],
        tiles=tiles(runs[0]) if alone else [],
        sections=[
            Section("Comparison", compared),
            Section("Cost of equal quality", reached),
            Section("Loss", _loss(runs)),
            Section("Ahead of the baseline", ahead.ahead(runs)),
            Section("Events", events.events(runs)),
            Section("Growth", growth.growth(runs)),
            Section("Optimization", [Picture(lambda: curves.step_charts(runs))]),
            Section("Where the compute went", ledger.costs(runs, base)),
            Section("Speed", phases.phases(runs)),
            Section("Memory and energy", ledger.resources(runs, base)),
            Section("Generated text", facts.samples(runs)),
            Section("Settings", facts.settings(runs, base)),
            Section("Environment", facts.environment(runs)),
        ],
    )


def _loss(runs: Sequence[Run]) -> list[Block]:
    words, figures = values.sparklines(runs), values.values(runs)
    return [Picture(lambda: curves.loss_charts(runs), words, figures)]


def lead(runs: Sequence[Run]) -> list[str]:
    """What came out, in one sentence; every second piece is stressed."""
    known = [(v, r) for r in runs if (v := figure(r, "bits_per_byte")) is not None]
    if not known:
        steps = figure(runs[0], "steps")
        after = f", after {steps:.0f} steps" if steps else ""
        return [f"No validation result yet{after}."]
    best, run = min(known, key=lambda pair: pair[0])
    who = ["Reached "] if len(runs) == 1 else ["Best: ", run.name, " with "]
    plain = number(run.summary.get("unigram_bits_per_byte"))
    beside = f" (unigram model: {plain:.3f})" if plain is not None else ""
    figures = f"{best:.3f} bits per byte"
    return [*who, figures, f" on held-out text{beside}{_spent(run)}."]


def _spent(run: Run) -> str:
    """` for 2M tokens, 4 TFLOPs and 20 s`."""
    spent = [
        form(value)
        for key, form in (
            ("tokens", lambda v: f"{units.si(v)} tokens"),
            ("flops", units.flops),
            ("time", units.duration),
        )
        if (value := figure(run, key)) is not None
    ]
    *most, end = spent or [""]
    return f" for {', '.join(most)}{' and ' if most else ''}{end}" if spent else ""


def tiles(run: Run) -> list[Tile]:
    """The headline figures of one run."""
    unigram = number(run.summary.get("unigram_bits_per_byte"))
    shown = {
        "bits_per_byte": ("bits per byte", "{:.3f}".format),
        "perplexity": ("perplexity per token", "{:.4g}".format),
        "tokens": ("training tokens", units.si),
        "flops": ("FLOPs", units.si),
        "seconds": ("time in all", units.duration),
        "params": ("parameters", units.si),
    }
    trained = figure(run, "train_seconds")
    beside = {
        "bits_per_byte": _small(unigram, "unigram model {:.3f}"),
        "perplexity": _small(figure(run, "final_loss"), "loss {:.3f} nats"),
        "tokens": _small(figure(run, "steps"), "{:.0f} steps"),
        "flops": _small(figure(run, "flops"), "{:.3e}"),
        "seconds": "" if trained is None else f"training {units.duration(trained)}",
        "params": _small(figure(run, "params"), "{:,.0f}"),
    }
    return [
        Tile(name, DASH if (v := figure(run, key)) is None else form(v), beside[key])
        for key, (name, form) in shown.items()
    ]


def _small(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
