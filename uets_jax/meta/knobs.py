"""Knobs that are searched for, and the file in which what was found is shipped."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from uets_jax.errors import UserError, nearest

SHIPPED = Path(__file__).with_name("weights")


@dataclasses.dataclass(frozen=True)
class Knob:
    """A number that is searched for, in [low, high]; `log`: on a logarithmic scale.

    Raises:
      UserError: bounds that are none, or a start outside of them.
    """

    name: str
    low: float
    high: float
    log: bool
    start: float

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise UserError(f"{self.name}: low must be below high, both finite")
        if self.log and not self.low > 0:
            raise UserError(f"{self.name}: a log scale needs low above 0")
        if not self.low <= self.start <= self.high:
            raise UserError(f"{self.name}: the start {self.start} is out of bounds")

    def to_unit(self, value: float) -> float:
        """Its place in [0, 1]."""
        scale = math.log if self.log else float
        low, high = scale(self.low), scale(self.high)
        return (scale(value) - low) / (high - low)

    def from_unit(self, place: float) -> float:
        """The value at a place of [0, 1]."""
        scale, back = (math.log, math.exp) if self.log else (float, float)
        low, high = scale(self.low), scale(self.high)
        value = back(low + min(max(place, 0.0), 1.0) * (high - low))
        return min(max(value, self.low), self.high)


@dataclasses.dataclass(frozen=True)
class Asset:
    """Values that were learned by training, and what that cost.

    name:   of the asset.
    values: by knob.
    flops:  all training FLOPs of the search, its checks included.
    runs:   that were made.
    commit: of the code that made them.
    seeds:  of all runs.
    source: the command, or what else tells how to make it again.
    note:   free text.

    Raises:
      UserError: naming the field that is wrong.
    """

    name: str
    values: Mapping[str, float] = dataclasses.field(hash=False)
    flops: float
    runs: int
    commit: str
    seeds: tuple[int, ...]
    source: str
    note: str = ""

    def __post_init__(self) -> None:
        _check(vars(self), self.name)


def write(path: Path, asset: Asset) -> None:
    """Writes the asset as JSON, in a form that `read` gives back unchanged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(dataclasses.asdict(asset), indent=2, allow_nan=False)
    path.write_text(text + "\n", "utf-8")


def read(path: Path | str, names: Iterable[str] = ()) -> Asset:
    """The asset of a JSON file, or the shipped one of that name.

    Args:
      path: of a file; a name without a suffix means `weights/<name>.json` beside this
        module.
      names: knobs that `values` must hold, all of them and no other; empty: any.

    Raises:
      UserError: naming the file and the field that is wrong, or the shipped names.
    """
    place = Path(path).expanduser()
    if not place.suffix and str(path) == place.name:
        place = SHIPPED / f"{path}.json"
        shipped = [p.stem for p in sorted(SHIPPED.glob("*.json"))]
        if place.stem not in shipped:
            hint = nearest(place.stem, shipped) if shipped else "none is shipped"
            raise UserError(f"unknown asset {path!r}: {hint}")
    asset = _asset(_object(place), str(place))
    _check_names(asset, list(names), str(place))
    return asset


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


def _asset(row: dict[str, Any], where: str) -> Asset:
    fields = {field.name: field for field in dataclasses.fields(Asset)}
    for key in row:
        if key not in fields:
            raise UserError(f"{where}: unknown field {key!r}: {nearest(key, fields)}")
    for key, field in fields.items():
        if key not in row and field.default is dataclasses.MISSING:
            raise UserError(f"{where}: the field {key!r} is missing")
    _check(row, where)
    values = {name: float(value) for name, value in row["values"].items()}
    plain = {
        "values": values,
        "seeds": tuple(row["seeds"]),
        "flops": float(row["flops"]),
    }
    return Asset(**{**row, **plain})


def _check(row: Mapping[str, Any], where: str) -> None:
    for key, value in row.items():
        fits, wanted = _CHECKS[key]
        if not fits(value):
            raise UserError(f"{where}: {key}: give {wanted}, not {value!r:.60}")


def _check_names(asset: Asset, names: list[str], where: str) -> None:
    for name in names:
        if name not in asset.values:
            raise UserError(f"{where}: values: the knob {name!r} is missing")
    for name in asset.values if names else ():
        if name not in names:
            raise UserError(
                f"{where}: values: unknown knob {name!r}: {nearest(name, names)}"
            )


def _is(kind: Any, value: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return _is(int | float, value) and math.isfinite(value)


def _values(value: Any) -> bool:
    named = isinstance(value, Mapping) and all(isinstance(k, str) for k in value)
    return named and bool(value) and all(map(_number, value.values()))


_TEXT = (lambda value: isinstance(value, str) and value, "a text")
_CHECKS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "name": _TEXT,
    "values": (_values, "an object of finite numbers by knob"),
    "flops": (lambda v: _number(v) and v > 0, "a number above 0"),
    "runs": (lambda v: _is(int, v) and v > 0, "a whole number above 0"),
    "commit": _TEXT,
    "seeds": (
        lambda v: isinstance(v, tuple | list) and v and all(_is(int, s) for s in v),
        "a list of whole numbers",
    ),
    "source": _TEXT,
    "note": (lambda value: isinstance(value, str), "a text"),
}
