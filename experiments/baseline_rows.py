"""What is read off the runs of the baselines, and the tables made of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.runner import Measure
from uets_jax.build import build
from uets_jax.config import window_length
from uets_jax.data.store import prepare
from uets_jax.evaluate.tasks import evaluate_task, read_task
from uets_jax.train.loop import Result

PAIRS = 20  # BLiMP pairs of each of the 67 paradigms


def measure_with(data: Path) -> Measure:
    """Reads BLiMP accuracy off a finished run; nothing where the file is missing."""
    path = data / "evals" / "blimp.jsonl.xz"

    def measure(result: Result) -> Mapping[str, Any]:
        if not path.exists():
            return {"blimp_accuracy": None}
        config = result.config
        found = evaluate_task(
            build(config),
            result.state.params,
            prepare(config.data).tokenizer,
            read_task(path),
            window_length(config),
            limit=PAIRS,
        )
        names = ("accuracy", "accuracy_ci_low", "accuracy_ci_high", "items")
        return {f"blimp_{name}": found.metrics[f"blimp_{name}"] for name in names}

    return measure
