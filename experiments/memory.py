"""The memory that a plan promises against XLA's: `python -m experiments.memory --help`.

The estimate walks the trace of a train step; XLA's figure is `memory_analysis()` of the
same step, compiled on this machine. Nothing is run.
"""

import argparse
import itertools
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.records import write_record
from uets_jax.config import ExperimentConfig, to_dict
from uets_jax.errors import ENDS, EXIT_OK, exit_code
from uets_jax.measure.devices import find
from uets_jax.models.presets import from_dict
from uets_jax.train.cost import compiled_bytes
from uets_jax.train.footprint import step_memory

KINDS = ("tuned", "held out")
VOCAB = {"tiny": 257, "nano": 4096, "micro": 4096}  # else that of GPT-2
NOTE = (
    "error: estimate_bytes / compiled_bytes - 1, peak of a train step on one device. "
    "tuned: the rules of measure/memory.py were made with such programs at hand; "
    "held out: kinds of programs that they were not made with."
)


Programs = dict[str, ExperimentConfig]


def step(
    preset: str, size: str, rule: str, batch: int, parts: int = 1, **model: Any
) -> Programs:
    """A train step on one device under its name, `preset size rule batch/parts`."""
    words = [f"{key}={value}" for key, value in model.items() if value is not False]
    name = " ".join((preset, size, rule, f"{batch}/{parts}", *words))
    values = {"preset": preset, "size": size, "vocab": VOCAB.get(size, 50304), **model}
    train = {"batch": batch, "microbatches": parts, "mesh": {"data": 1}}
    return {name: from_dict({"model": values, "optim": {"name": rule}, "train": train})}


def tuned() -> Programs:
    """Presets, rules and sizes, with and without recomputation and microbatches."""
    found: Programs = {}
    for preset, rule in itertools.product(("modern", "gpt2"), ("adamw", "muon")):
        found |= step(preset, "tiny", rule, 64)
        found |= step(preset, "tiny", rule, 16, 4, remat=True)
        found |= step(preset, "nano", rule, 16, 4)
        found |= step(preset, "nano", rule, 16, remat=True)
        found |= step(preset, "14M", rule, 16)
        found |= step(preset, "14M", rule, 64, 4, remat=True)
    found |= step("modern", "nano", "adamw", 16, dtype="bfloat16")
    found |= step("gpt2", "14M", "adamw", 8, 2, remat=True, dtype="bfloat16")
    return found | step("gpt2", "gpt2-small", "muon", 8, 2, dtype="bfloat16")


def held_out() -> Programs:
    """Another rule, other shapes of the model, larger models; bfloat16 with them."""
    half: dict[str, Any] = {"dtype": "bfloat16"}
    return (
        step("modern", "nano", "lion", 16, activation="swiglu", kv_heads=2)
        | step("gpt2", "micro", "lion", 8, 2, remat=True)
        | step("modern", "micro", "adamw", 32, mask_documents=True)
        | step("gpt2", "70M", "adamw", 4)
        | step("modern", "70M", "muon", 8, 2, remat=True)
        | step("gpt2", "gpt2-small", "adamw", 8, 2)
        | step("modern", "micro", "muon", 32, 4, remat=True, **half)
        | step("gpt2", "70M", "adamw", 4, **half)
        | step("modern", "14M", "lion", 16, 2, mask_documents=True, **half)
    )


def row(program: str, kind: str, config: ExperimentConfig) -> dict[str, Any]:
    """Both figures of one program."""
    estimate = sum(step_memory(config, find("cpu")).values())
    exact = compiled_bytes(config)
    return {
        "program": program,
        "kind": kind,
        "estimate_bytes": estimate,
        "compiled_bytes": exact,
        "error": estimate / exact - 1,
    }


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Median and worst error of each kind that has rows."""
    found = []
    for kind in KINDS:
        if mine := [r for r in rows if r["kind"] == kind]:
            worst = max(mine, key=lambda r: abs(r["error"]))
            median = statistics.median(abs(r["error"]) for r in mine)
            extremes = {"median_error": median, "worst_error": worst["error"]}
            figures = {"kind": kind, "programs": len(mine), **extremes}
            found.append({**figures, "worst_program": worst["program"]})
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measures all programs; writes `foundation.memory` and its summary."""
    parser = argparse.ArgumentParser(prog="python -m experiments.memory")
    parser.add_argument("--out", type=Path, default=Path("results"))
    words = list(sys.argv[1:] if argv is None else argv)
    given = parser.parse_args(words)
    programs = {"tuned": tuned(), "held out": held_out()}
    rows, configs = [], {}
    try:
        for kind in KINDS:
            for name, config in programs[kind].items():
                rows.append(row(name, kind, config))
                configs[name] = to_dict(config)["model"]
                print(f"{name:60} {rows[-1]['error']:+.3f}")
        command = " ".join(["python -m experiments.memory", *words])
        tables = {"foundation.memory": rows, "foundation.memory_summary": summary(rows)}
        for name, table in tables.items():
            path = write_record(name, table, command, configs, NOTE, out=given.out)
            print(path)
    except ENDS as error:
        print(f"memory: error: {error}", file=sys.stderr)
        return exit_code(error)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
