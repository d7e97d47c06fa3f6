"""A config as a command line that `uets train` takes."""

import dataclasses
import shlex
from collections.abc import Collection
from typing import Any

from uets_jax.config import ExperimentConfig, nested
from uets_jax.flags import flag_types, spelled, value_at
from uets_jax.models.presets import from_dict
from uets_jax.pilot.methods import combined
from uets_jax.train.budget import steps_for
from uets_jax.validation import validate

FIRST = ("data.source", "model.preset", "model.size")


def recommended(
    given: ExperimentConfig, names: Collection[str], flops: float
) -> ExperimentConfig:
    """The full run with the methods of these names, and the steps that are paid for.

    Raises:
      UserError: if the methods can't be had together.
    """
    config = validate(combined(given, names))
    train = dataclasses.replace(config.train, steps=steps_for(config, flops))
    return dataclasses.replace(config, train=train)


def command(config: ExperimentConfig, out: str) -> str:
    """What a shell takes to run it into a folder."""
    words = ["uets", "train"]
    for path, value in {**departures(config), "out": out}.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        words += [spelled(path), text]
    return shlex.join(words)


def departures(config: ExperimentConfig) -> dict[str, Any]:
    """The flags that lead to a config, by dotted path, the source first.

    As few as it takes: preset and size bring the fields that they name along.
    """
    usual, paths = ExperimentConfig(), flag_types(ExperimentConfig)
    wanted = {path: value_at(config, path) for path in paths}
    own = lambda path: path == FIRST[0] or wanted[path] != value_at(usual, path)
    values = {path: wanted[path] for path in FIRST if own(path)}
    now = from_dict(nested(values))
    while now != config:
        values |= {p: v for p, v in wanted.items() if v != value_at(now, p)}
        now = from_dict(nested(values))
    return values
