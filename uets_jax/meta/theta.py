"""The file of a learned rule: its weights, and what it took to learn them.

JSON, no pickle: a weight is the shortest decimal that gives back its float32.
"""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from uets_jax.errors import UserError, nearest

SHIPPED = Path(__file__).with_name("weights")


@dataclasses.dataclass(frozen=True)
class Card:
    """What a user of the weights should know.

    rule:         whose theta it is.
    tasks:        families that it was learned on.
    validation:   families that chose it.
    core_seconds: of meta-training, checks included.
    flops:        likewise, as `measure.jaxpr` counts them; None: not countable.
    inner_steps:  likewise.
    horizon:      fewest and most steps of the episodes: where it can be trusted.
    score:        mean difference of log held-out loss to the first theta, on fresh
                  seeds of `validation`; below 0 is better.
    error:        its standard error.
    commit:       of the code.
    command:      that made it.
    note:         free text.
    """

    rule: str
    tasks: tuple[str, ...]
    validation: tuple[str, ...]
    core_seconds: float
    flops: float | None
    inner_steps: int
    horizon: tuple[int, int]
    score: float
    error: float
    commit: str
    command: str
    note: str = ""


def save_theta(path: Path | str, theta: Any, card: Card) -> None:
    """Writes the JSON that `load_theta` reads; theta is a pytree of float32.

    Raises:
      UserError: naming a leaf that is not finite float32, or a field of the card.
    """
    place = Path(path).expanduser()
    leaves, _ = jax.tree.flatten_with_path(theta)
    weights = {_name(p): _row(_name(p), leaf) for p, leaf in leaves}
    row = {"card": json.loads(json.dumps(dataclasses.asdict(card)))}
    _check_card(row["card"], str(place))
    text = json.dumps({**row, "weights": weights}, indent=1, allow_nan=False)
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(place.name + ".tmp")
    temporary.write_text(_flat(text) + "\n", "utf-8")
    temporary.replace(place)


def load_theta(path: Path | str, like: Any) -> tuple[Any, Card]:
    """The theta of a file, in the structure of `like`, and its card.

    Args:
      path: of a file; a name without a suffix means `weights/<name>.json` beside this
        module.
      like: a pytree of arrays or shapes; every leaf must be in the file, no other.

    Raises:
      UserError: naming the file, and what is missing or wrong in it.
    """
    place = Path(path).expanduser()
    if not place.suffix and str(path) == place.name:
        place = SHIPPED / f"{path}.json"
    row = _object(place)
    for key in ("card", "weights"):
        if not isinstance(row.get(key), dict):
            raise UserError(f"{place}: {key}: give an object")
    _check_card(row["card"], str(place))
    leaves, tree = jax.tree.flatten_with_path(like)
    names = [_name(p) for p, _ in leaves]
    for name in row["weights"]:
        if name not in names:
            raise UserError(
                f"{place}: weights: unknown leaf {name!r}: {nearest(name, names)}"
            )
    values = [
        _leaf(row["weights"], name, tuple(leaf.shape), str(place))
        for name, (_, leaf) in zip(names, leaves, strict=True)
    ]
    own = row["card"]
    lists = {key: tuple(own[key]) for key in ("tasks", "validation", "horizon")}
    return jax.tree.unflatten(tree, values), Card(**{**own, **lists})


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _row(name: str, leaf: Any) -> dict[str, Any]:
    x = np.asarray(leaf)
    if x.dtype != np.float32:
        raise UserError(f"theta: {name} is {x.dtype}, not float32")
    if not np.isfinite(x).all():
        raise UserError(f"theta: {name} has values that are not finite")
    return {"shape": list(x.shape), "values": [float(str(v)) for v in x.ravel()]}


def _leaf(
    weights: Mapping[str, Any], name: str, shape: tuple[int, ...], where: str
) -> np.ndarray:
    row = weights.get(name)
    if not isinstance(row, dict):
        raise UserError(f"{where}: weights: the leaf {name!r} is missing")
    if row.get("shape") != list(shape):
        raise UserError(
            f"{where}: weights: {name} has shape {row.get('shape')}, not {list(shape)}"
        )
    values = row.get("values")
    if not isinstance(values, list) or len(values) != math.prod(shape):
        raise UserError(f"{where}: weights: {name}: give {math.prod(shape)} values")
    if not all(map(_number, values)):
        raise UserError(f"{where}: weights: {name}: give finite numbers")
    return np.asarray(values, np.float32).reshape(shape)


def _flat(text: str) -> str:
    """Numbers of one list on one line."""
    return re.sub(r"\[[^\[\]{}\"]*\]", lambda m: " ".join(m[0].split()), text)


def _object(path: Path) -> dict[str, Any]:
    try:
        row = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: broken JSON ({error})") from None
    if not isinstance(row, dict):
        raise UserError(f"{path}: expected an object, got {row!r:.40}")
    return row


def _check_card(card: Mapping[str, Any], where: str) -> None:
    for key in card:
        if key not in _CHECKS:
            raise UserError(f"{where}: card: unknown {key!r}: {nearest(key, _CHECKS)}")
    for key, (fits, wanted) in _CHECKS.items():
        if key not in card:
            raise UserError(f"{where}: card: the field {key!r} is missing")
        if not fits(card[key]):
            raise UserError(f"{where}: card: {key}: give {wanted}")


def _number(value: Any) -> bool:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and math.isfinite(value)


def _names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(x, str) for x in value)


_TEXT = (lambda v: isinstance(v, str) and bool(v), "a text")
_COST = (lambda v: _number(v) and v >= 0, "a finite number, 0 or more")
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "rule": _TEXT,
    "tasks": (_names, "a list of names"),
    "validation": (_names, "a list of names"),
    "core_seconds": _COST,
    "flops": (lambda v: v is None or (_number(v) and v >= 0), "a number or null"),
    "inner_steps": _COST,
    "horizon": (
        lambda v: isinstance(v, list) and len(v) == 2 and all(map(_number, v)),
        "two numbers of steps",
    ),
    "score": (_number, "a finite number"),
    "error": (_number, "a finite number"),
    "commit": _TEXT,
    "command": _TEXT,
    "note": (lambda v: isinstance(v, str), "a text"),
}
