"""The page of AQL v2: what was drawn, the buffer, the curriculum, the calibration."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import aql_figures
from experiments.aql_figures import Row, Scores
from experiments.records import read_record
from experiments.uncertainty_calibration import RELIABILITY
from uets_jax.report import markup
from uets_jax.report.blocks import Page, Section
from uets_jax.report.files import replace_text
from uets_jax.report.markup import escape
from uets_jax.report.style import CSS


def page(
    shares: Sequence[Row],
    scores: Scores,
    stages: Sequence[Mapping[str, float]],
    diagrams: Sequence[Row],
) -> Page:
    """All of it.

    Args:
      shares: rows of `aql.shares`.
      scores: of the buffer's rows, by mode and step.
      stages: metrics of a run with a curriculum, by step.
      diagrams: rows of reliability of `aql.uncertainty`, if it has any.
    """
    return Page(
        title="What AQL v2 trains on",
        lead=_lead(shares),
        warnings=[],
        tiles=[],
        sections=[
            Section("Kinds of text over the run", aql_figures.kinds(shares)),
            Section("Scores in the buffer", aql_figures.buffer(scores)),
            Section("Stages of a curriculum", aql_figures.stages(stages)),
            Section("Calibration of uncertainty", aql_figures.calibration(diagrams)),
        ],
    )


def write(content: Page, out: Path) -> Path:
    """One HTML file that needs nothing else."""
    lead = f'<p class="lead">{markup.lead(content.lead)}</p>'
    sections = "\n".join(map(markup.section, content.sections))
    return replace_text(
        out,
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(content.title)}</title>\n<style>{CSS}</style>\n</head>\n"
        f"<body>\n<main>\n<header><h1>{escape(content.title)}</h1>\n{lead}</header>\n"
        f"{sections}\n</main>\n<footer>uets_jax · python -m experiments.aql_shares"
        "</footer>\n</body>\n</html>\n",
    )


def diagrams(results: Path) -> list[dict[str, Any]]:
    """The rows of reliability in the record `aql.uncertainty`; none where it is not."""
    if not (results / "aql.uncertainty.json").exists():
        return []
    rows = read_record("aql.uncertainty", results)["rows"]
    return [row for row in rows if row.get("score") == RELIABILITY]


def _lead(shares: Sequence[Row]) -> list[str]:
    said = ["Unique target text is "]
    for row in shares:
        if row["tenth"] is None:
            where = f"what mode {row['mode']} draws" if row["mode"] else "the pool"
            said += [f"{row['unique_share']:.0%}", f" of {where}, "]
    return [*said[:-1], said[-1].removesuffix(", ") + "."]
