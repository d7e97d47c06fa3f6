"""The tables of a report that describe: settings, environment, events."""

import itertools
import json
from collections.abc import Sequence
from typing import Any

from uets_jax.report import units
from uets_jax.report.markup import DASH, TIMES, code, details, escape, note, table
from uets_jax.report.run import Run, number

MOST_EVENTS = 100


def settings(runs: Sequence[Run]) -> str:
    """What differs between the runs, then each whole config, folded."""
    flat = [_flat(run.config) for run in runs]
    if not any(flat):
        return note("No config.json, so the settings are unknown.")
    pieces = []
    if len(runs) > 1:
        keys = list(dict.fromkeys(k for f in flat for k in f))
        differ = [k for k in keys if any(f.get(k) != flat[0].get(k) for f in flat)]
        rows = [[code(k), *(_value(f.get(k)) for f in flat)] for k in differ]
        names = ["differs", *(escape(run.name) for run in runs)]
        alike = note("All runs have the same settings.")
        pieces.append(table(names, rows, "settings") if rows else alike)
    for run, values in zip(runs, flat, strict=True):
        if values:
            rows = [[code(k), _value(v)] for k, v in values.items()]
            title = f"All settings of {escape(run.name)}"
            pieces.append(details(title, table(["setting", "value"], rows, "settings")))
    return "\n".join(pieces)


def environment(runs: Sequence[Run]) -> str:
    """Machine, versions, commit, hashes, memory and energy; one column per run."""
    flat = [_environment(run) for run in runs]
    keys = list(dict.fromkeys(k for f in flat for k in f))
    if not keys:
        return note("No summary.json, so machine, versions and hashes are unknown.")
    rows = [[escape(k), *(_value(f.get(k)) for f in flat)] for k in keys]
    head = ["", *(escape(run.name) for run in runs)]
    return table(head, rows, "settings")


def _environment(run: Run) -> dict[str, Any]:
    s = run.summary
    peak, joules = number(s.get("peak_memory_bytes")), number(s.get("joules"))
    source = s.get("energy_source")
    energy = None if joules is None else f"{units.si(joules, gap=' ')}J"
    if s and energy is None:
        energy = "not measured"
    found = {
        **_flat({"machine": s.get("machine")}),
        "peak memory": None if peak is None else units.memory(peak),
        "energy": f"{energy} ({source})" if energy and source else energy,
        **_flat({"versions": s.get("versions")}),
        "commit": s.get("commit"),
        "config hash": s.get("config_hash"),
        "parameters sha256": s.get("params_sha256"),
        "data sha256": s.get("data_sha256"),
        "corpus sha256": s.get("corpus_sha256"),
        "tokenizer sha256": s.get("tokenizer_sha256"),
        "FLOPs counted": s.get("flops_source"),
    }
    return {k: v for k, v in found.items() if v not in (None, "")}


def events(runs: Sequence[Run]) -> str:
    """What happened besides steps; repeated events of one kind make one row."""
    rows = []
    for run in runs:
        found = [r for r in run.records if r.get("event")]
        for kind, group in itertools.groupby(found, key=lambda r: str(r["event"])):
            rows.append([escape(run.name), *_event(kind, list(group))])
    if not rows:
        return ""
    first = 0 if len(runs) > 1 else 1
    head = ["run", "step", "event", "detail"][first:]
    shown = table(head, [row[first:] for row in rows[:MOST_EVENTS]], "settings")
    more = len(rows) - MOST_EVENTS
    return shown + (note(f"{more} more are in metrics.jsonl.") if more > 0 else "")


def _event(kind: str, group: list[dict[str, Any]]) -> list[str]:
    steps = [r.get("step", DASH) for r in group]
    times = f" {TIMES} {len(group)}" if len(group) > 1 else ""
    span = f"{steps[0]}{DASH}{steps[-1]}" if len(group) > 1 else f"{steps[0]}"
    return [escape(span), escape(kind) + times, escape(group[-1].get("detail") or "")]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as dotted keys, in their order."""
    if not isinstance(value, dict):
        return {prefix: value} if prefix else {}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found.update(_flat(inner, f"{prefix}.{key}" if prefix else str(key)))
    return found


def _value(value: Any) -> str:
    """Strings bare, all else as JSON writes it."""
    if value is None:
        return DASH
    return code(value if isinstance(value, str) and value else json.dumps(value))
