"""The page of AQL v2: what was drawn, the buffer, the curriculum, the calibration."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import aql_figures
from experiments.aql_figures import Row, Scores
from experiments.records import read_record
from experiments.uncertainty_calibration import RELIABILITY
from uets_jax.report.blocks import Page, Section


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
