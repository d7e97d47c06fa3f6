"""The file of a learned growth policy: weights, and what it took to learn them.

JSON, `weights/policy.json` beside this module for the one that is shipped.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from uets_jax.errors import UserError, nearest
from uets_jax.growth.score import FEATURES

SHIPPED = Path(__file__).with_name("weights") / "policy.json"


@dataclasses.dataclass(frozen=True)
class Policy:
    """What was learned.

    weights:      of `score`, in the order of `features`.
    flops:        that it cost to learn them: recorded runs and surrogate.
    core_seconds: likewise.
    config:       of the training: track, sizes, steps, range of costs, ...
    commit:       of the code that did it.
    source:       the command.
    """

    weights: tuple[float, ...]
    flops: float
    core_seconds: float
    config: Mapping[str, Any] = dataclasses.field(hash=False)
    commit: str
    source: str
    features: tuple[str, ...] = FEATURES


def save_policy(path: Path | str, policy: Policy) -> None:
    """Writes the JSON that `load_policy` reads."""
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(dataclasses.asdict(policy), indent=2, allow_nan=False)
    place.write_text(text + "\n", "utf-8")


def load_policy(path: Path | str | None = None) -> Policy:
    """The policy of a file; None: the shipped one.

    Raises:
      UserError: naming the file, and what is missing or wrong in it.
    """
    place = SHIPPED if path is None else Path(path).expanduser()
    row = _object(place)
    fields = {field.name for field in dataclasses.fields(Policy)}
    for key in row:
        if key not in fields:
            raise UserError(f"{place}: unknown field {key!r}: {nearest(key, fields)}")
    for key, (fits, wanted) in _CHECKS.items():
        if key not in row:
            raise UserError(f"{place}: the field {key!r} is missing")
        if not fits(row[key]):
            raise UserError(f"{place}: {key}: give {wanted}, not {row[key]!r:.60}")
    plain = {
        "weights": tuple(map(float, row["weights"])),
        "features": tuple(row["features"]),
        "flops": float(row["flops"]),
        "core_seconds": float(row["core_seconds"]),
    }
    return Policy(**{**row, **plain})


def _object(path: Path) -> dict[str, Any]:
    try:
        row = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(
            f"{path}: can't be read ({error.strerror}); growth.method learned needs a "
            "policy: python -m experiments.growth_policy --only train makes one"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: broken JSON ({error})") from None
    if not isinstance(row, dict):
        raise UserError(f"{path}: expected an object, got {row!r:.40}")
    return row


def _number(value: Any) -> bool:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and math.isfinite(value)


def _weights(value: Any) -> bool:
    right = isinstance(value, list) and len(value) == len(FEATURES)
    return right and all(map(_number, value))


_COST = (lambda value: _number(value) and value >= 0, "a finite number, 0 or more")
_TEXT = (lambda value: isinstance(value, str) and bool(value), "a text")
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "features": (lambda value: value == [*FEATURES], f"{[*FEATURES]}"),
    "weights": (_weights, f"{len(FEATURES)} finite numbers"),
    "flops": _COST,
    "core_seconds": _COST,
    "config": (lambda value: isinstance(value, dict), "an object"),
    "commit": _TEXT,
    "source": _TEXT,
}
