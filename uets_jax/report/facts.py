"""The parts of a report that describe: settings, environment, generated text."""

import json
from collections.abc import Sequence
from typing import Any

from uets_jax.report.blocks import (
    DASH,
    Block,
    Cell,
    Fold,
    Heading,
    Note,
    Sample,
    Table,
)
from uets_jax.report.run import Run

MOST_TEXT = 4000  # characters shown of one sample


def settings(runs: Sequence[Run], base: int = 0) -> list[Block]:
    """What differs from the base run, then each whole config, folded."""
    flat = [_flat(run.config) for run in runs]
    if not any(flat):
        return [Note("No config.json, so the settings are unknown.")]
    blocks: list[Block] = []
    if len(runs) > 1:
        keys = list(dict.fromkeys(k for f in flat for k in f))
        differ = [k for k in keys if any(f.get(k) != flat[base].get(k) for f in flat)]
        rows = [_row(k, flat, code=True) for k in differ]
        names = ["differs", *(run.name for run in runs)]
        alike = Note("All runs have the same settings.")
        table = Table("settings that differ", names, rows, "settings")
        blocks.append(table if rows else alike)
    for run, values in zip(runs, flat, strict=True):
        if values:
            title = f"All settings of {run.name}"
            rows = [_row(k, [values], code=True) for k in values]
            inside = [Table(title, ["setting", "value"], rows, "settings")]
            blocks.append(Fold(title, inside, printed=len(runs) == 1))
    return blocks


def environment(runs: Sequence[Run]) -> list[Block]:
    """Machine, versions, commit and hashes; one column per run."""
    flat = [_environment(run.summary) for run in runs]
    keys = list(dict.fromkeys(k for f in flat for k in f))
    if not keys:
        return [Note("No summary.json, so machine, versions and hashes are unknown.")]
    rows = [_row(k, flat) for k in keys]
    head = ["", *(run.name for run in runs)]
    return [Table("environment", head, rows, "settings")]


def _environment(summary: dict[str, Any]) -> dict[str, Any]:
    found = {
        **_flat({"machine": summary.get("machine")}),
        **_flat({"versions": summary.get("versions")}),
        "commit": summary.get("commit"),
        "config hash": summary.get("config_hash"),
        "parameters sha256": summary.get("params_sha256"),
        "data sha256": summary.get("data_sha256"),
        "corpus sha256": summary.get("corpus_sha256"),
        "tokenizer sha256": summary.get("tokenizer_sha256"),
    }
    return {k: v for k, v in found.items() if v not in (None, "")}


def samples(runs: Sequence[Run]) -> list[Block]:
    """Generated texts, the prompt set off from what the model wrote."""
    blocks: list[Block] = []
    for run in runs:
        kept = run.summary.get("samples")
        found = kept if isinstance(kept, list) else []
        found = [s for s in found if isinstance(s, dict)]
        if not found:
            blocks.append(Note(f"No text of {run.name} was kept."))
        elif len(runs) > 1:
            blocks.append(Heading(run.name))
        blocks += [_sample(s) for s in found]
    return blocks


def _sample(sample: dict[str, Any]) -> Sample:
    prompt, text = (str(sample.get(key) or "") for key in ("prompt", "text"))
    text = text.rstrip()
    return Sample(prompt, text[:MOST_TEXT] + ("…" if len(text) > MOST_TEXT else ""))


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as dotted keys, in their order."""
    if not isinstance(value, dict):
        return {prefix: value} if prefix else {}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found.update(_flat(inner, f"{prefix}.{key}" if prefix else str(key)))
    return found


def _row(key: str, flat: Sequence[dict[str, Any]], code: bool = False) -> list[Cell]:
    return [Cell(key, code=code), *(_value(f.get(key)) for f in flat)]


def _value(value: Any) -> Cell:
    """Strings bare, all else as JSON writes it."""
    if value is None:
        return Cell(DASH)
    bare = isinstance(value, str) and value
    return Cell(value if bare else json.dumps(value), code=True)
