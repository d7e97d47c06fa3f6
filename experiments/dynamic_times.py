"""Seconds of a run that grew: its steps at each shape, by that shape's step alone.

The runs of the queue share the machine, so their own seconds can't be compared; each
shape's step is timed once on a quiet machine, with both cores.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.step_times import step_time
from uets_jax.config import ExperimentConfig, ModelConfig
from uets_jax.growth.stages import Op, resized
from uets_jax.models.presets import from_dict
from uets_jax.train.files import write_json

Times = Mapping[str, float]  # seconds of a step by `key`


def stages(record: Mapping[str, Any]) -> Iterator[tuple[int, ExperimentConfig]]:
    """(steps, config) of each shape that a run had."""
    config, begin = from_dict(record["config"]), 0
    for event in record["growth"]:
        yield event["step"] - begin, config
        begin, model = event["step"], config.model
        for op in event["ops"]:
            model = resized(model, Op(op["field"], op["size"]))
        config = dataclasses.replace(config, model=model)
    yield record["steps"] - begin, config


def key(model: ModelConfig) -> str:
    """Names a shape."""
    return (
        f"depth {model.depth}, heads {model.heads}x{model.head_dim}, hidden "
        f"{model.hidden}, experts {model.experts}"
    )


def seconds(record: Mapping[str, Any], times: Times) -> float:
    """Of all steps of a run."""
    return sum(steps * times[key(config.model)] for steps, config in stages(record))


def measured(records: Sequence[Mapping[str, Any]], runs: Path) -> dict[str, float]:
    """The times of all shapes of the records; kept in `runs/step_times.json`.

    Raises:
      UserError: if a step can't be timed.
    """
    path = runs / "step_times.json"
    known = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for record in records:
        for _, config in stages(record):
            if key(config.model) not in known:
                alone = dataclasses.replace(config, growth=type(config.growth)())
                known[key(config.model)] = step_time(alone).step_seconds
                write_json(path, known)
    return known
