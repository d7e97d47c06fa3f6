"""The report of one or several runs: one HTML file that needs nothing else."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uets_jax.errors import UserError
from uets_jax.report import curves, facts, tables, units
from uets_jax.report.markup import DASH, escape, note, section
from uets_jax.report.run import Run, figure, load_runs, number
from uets_jax.report.style import CSS

MOST_TEXT = 4000  # characters shown of one sample


def write_report(run_dirs: Sequence[Path], out: Path) -> Path:
    """Writes the report of the runs in `run_dirs`, compared; returns `out`.

    The file holds its style and its charts (inline SVG), no script, and loads nothing.
    What a run doesn't have is said in a sentence. Equal input gives equal bytes.

    Raises:
      UserError: when a directory doesn't exist or holds neither metrics.jsonl nor
        summary.json, for a broken line inside metrics.jsonl, or when `out` can't be
        written.
    """
    runs, out = load_runs(run_dirs), Path(out)
    page = render(runs).encode()
    part = out.with_name(out.name + ".tmp")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(page)
        os.replace(part, out)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise UserError(f"{out}: {error.strerror}: can't write the report") from None
    return out


def render(runs: Sequence[Run]) -> str:
    """The whole page."""
    alone = len(runs) == 1
    title = runs[0].name if alone else f"Comparison of {len(runs)} runs"
    body = "\n".join(
        (
            f"<header><h1>{escape(title)}</h1>",
            f'<p class="lead">{sentence(runs)}</p></header>',
            missing(runs),
            tiles(runs[0]) if alone else "",
            "" if alone else section("Comparison", tables.comparison(runs)),
            "" if alone else section("Cost of equal quality", tables.reach(runs)),
            section("Loss", curves.loss_charts(runs)),
            section("Optimization", curves.step_charts(runs)),
            section("Where the compute went", _costs(runs)),
            section("Generated text", samples(runs)),
            section("Settings", facts.settings(runs)),
            section("Environment", facts.environment(runs)),
            section("Events", facts.events(runs)),
        )
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n"
        f"<main>\n{body}\n</main>\n<footer>uets_jax · charts and figures from "
        "metrics.jsonl and summary.json</footer>\n</body>\n</html>\n"
    )


def sentence(runs: Sequence[Run]) -> str:
    """What came out, in one sentence."""
    known = [(v, r) for r in runs if (v := figure(r, "bits_per_byte")) is not None]
    if not known:
        steps = figure(runs[0], "steps")
        after = f", after {steps:.0f} steps" if steps else ""
        return f"No validation result yet{after}."
    best, run = min(known, key=lambda pair: pair[0])
    who = "Reached" if len(runs) == 1 else f"Best: <em>{escape(run.name)}</em> with"
    plain = number(run.summary.get("unigram_bits_per_byte"))
    beside = f" (unigram model: {plain:.3f})" if plain is not None else ""
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
    cost = f" for {', '.join(most)}{' and ' if most else ''}{end}" if spent else ""
    figures = f"<strong>{best:.3f} bits per byte</strong> on held-out text"
    return f"{who} {figures}{beside}{cost}."


def missing(runs: Sequence[Run]) -> str:
    """What the reader must know before the figures."""
    who = (lambda run: "") if len(runs) == 1 else (lambda run: f"{run.name}: ")
    said = [f"<li>{escape(who(run) + n)}</li>" for run in runs for n in run.notes]
    return f'<ul class="warn">{"".join(said)}</ul>' if said else ""


def tiles(run: Run) -> str:
    """The headline figures of one run."""
    unigram = number(run.summary.get("unigram_bits_per_byte"))
    train = figure(run, "train_seconds")
    loss, steps = figure(run, "final_loss"), figure(run, "steps")
    return '<div class="tiles">\n{}</div>'.format(
        "".join(
            (
                _tile(run, "bits_per_byte", "bits per byte", "{:.3f}".format)
                + _beside(unigram, "unigram model {:.3f}"),
                _tile(run, "perplexity", "perplexity per token", "{:.4g}".format)
                + _beside(loss, "loss {:.3f} nats"),
                _tile(run, "tokens", "training tokens", units.si)
                + _beside(steps, "{:.0f} steps"),
                _tile(run, "flops", "FLOPs", units.si)
                + _beside(figure(run, "flops"), "{:.3e}"),
                _tile(run, "seconds", "time in all", units.duration)
                + _beside(
                    None if train is None else units.duration(train), "training {}"
                ),
                _tile(run, "params", "parameters", units.si)
                + _beside(figure(run, "params"), "{:,.0f}"),
            )
        )
    )


def _tile(run: Run, key: str, name: str, form: Any) -> str:
    value = figure(run, key)
    shown = DASH if value is None else form(value)
    return f"<div><span>{name}</span><b>{shown}</b>"


def _beside(value: Any, form: str) -> str:
    """The small print that ends a tile."""
    inside = "" if value is None else form.format(value)
    return f"<small>{inside}</small></div>\n"


def _costs(runs: Sequence[Run]) -> str:
    work = tables.breakdown(runs, "flops", "FLOPs", units.si)
    time = tables.breakdown(runs, "seconds", "seconds", units.duration)
    return f'<div class="pair">{work}{time}</div>' if len(runs) == 1 else work + time


def samples(runs: Sequence[Run]) -> str:
    """Generated texts, the prompt set off from what the model wrote."""
    pieces = []
    for run in runs:
        kept = run.summary.get("samples")
        found = kept if isinstance(kept, list) else []
        found = [s for s in found if isinstance(s, dict)]
        if not found:
            pieces.append(note(f"No text of {run.name} was kept."))
        elif len(runs) > 1:
            pieces.append(f"<h3>{escape(run.name)}</h3>")
        pieces += [_sample(s) for s in found]
    return "\n".join(pieces)


def _sample(sample: dict[str, Any]) -> str:
    prompt, text = (str(sample.get(key) or "") for key in ("prompt", "text"))
    text = text.rstrip()
    more = "…" if len(text) > MOST_TEXT else ""
    begun = f"<b>{escape(prompt)}</b>" if prompt else ""
    return f'<pre class="sample">{begun}{escape(text[:MOST_TEXT])}{more}</pre>'
