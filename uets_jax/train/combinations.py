"""The combinations of settings that `train.tune` names, as text.

optim.learning_rate=0.01,0.02,0.04; select.knobs.novelty=5,10
"""

import itertools
import json
from typing import Any

from uets_jax.config import ExperimentConfig, nested, replace_from_dict
from uets_jax.errors import UserError
from uets_jax.validation import validate

ROOMS = ("optim", "select", "curriculum")  # neither another model nor another text
MOST = 64  # combinations
LEAST = 10  # steps of a rehearsal

Settings = tuple[tuple[str, Any], ...]


def check_tune(config: ExperimentConfig) -> None:
    """Raises `UserError` for a tuning that can't be made."""
    if config.train.tune:
        lengths(config, len(combinations(config)))


def combinations(config: ExperimentConfig) -> tuple[Settings, ...]:
    """All combinations of the values that `train.tune` names, as the config takes them.

    Raises:
      UserError: as `tune`.
    """
    grid: dict[str, list[Any]] = {}
    for part in filter(None, map(str.strip, config.train.tune.split(";"))):
        path, _, values = part.partition("=")
        path = path.strip()
        if not values.strip() or path in grid:
            raise UserError(
                f"train.tune: {part!r}: write each setting once, as "
                "optim.learning_rate=0.01,0.02"
            )
        if path.partition(".")[0] not in ROOMS:
            raise UserError(
                f"train.tune: {path}: settings of {', '.join(ROOMS)} only; rehearsals "
                "share the model, the text and the batch"
            )
        grid[path] = list(dict.fromkeys(map(_value, values.split(","))))
    found = tuple(
        tuple(zip(grid, values, strict=True))
        for values in itertools.product(*grid.values())
    )
    if not 2 <= len(found) <= MOST:
        raise UserError(
            f"train.tune: {len(found)} combinations; give 2 to {MOST} of them"
        )
    for settings in found:
        validate(changed(config, settings))
    return found


def lengths(config: ExperimentConfig, count: int) -> tuple[int, ...]:
    """Steps of a rehearsal in each round, `count` combinations in the first.

    Raises:
      UserError: if the first ones are too short to tell anything.
    """
    sizes = [count]
    while sizes[-1] > 2:
        sizes.append(-(-sizes[-1] // 2))
    each = config.train.tune_share * config.train.steps / len(sizes)
    found = tuple(int(each / size) for size in sizes)
    if found[0] < LEAST:
        raise UserError(
            f"train.tune: {count} combinations get {found[0]} steps each, fewer than "
            f"{LEAST}; give fewer, a larger train.tune_share or more train.steps"
        )
    return found


def changed(config: ExperimentConfig, settings: Settings) -> ExperimentConfig:
    """`config` with these settings.

    Raises:
      UserError: if one does not exist or is of another type.
    """
    return replace_from_dict(config, nested(dict(settings)))


def words(settings: Settings) -> str:
    """`optim.learning_rate=0.02, select.knobs.novelty=5`."""
    return ", ".join(f"{path}={value}" for path, value in settings)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text.strip()
