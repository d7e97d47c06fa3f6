"""The file of a gate's weights: arrays in `NAME.npz`, what they are in `NAME.json`.

`weights/gate.npz` beside this module is the one that is shipped. No pickle.
"""

import dataclasses
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from uets_jax.errors import UserError, nearest
from uets_jax.optim.gate import GateSettings, GateTheta, check_theta
from uets_jax.optim.mlp import MlpTheta

SHIPPED = Path(__file__).with_name("weights") / "gate.npz"
CARD: dict[str, Any] = {
    "meta_trained": False,
    "tasks": [],
    "horizon": [0, 0],  # steps of the runs that it was trained on, least and most
    "core_seconds": 0.0,
    "flops": 0.0,
    "commit": "",
    "source": "",
    "note": "",
}


class Stored(NamedTuple):
    """Weights, the settings that they belong to, and the card (see `CARD`)."""

    theta: GateTheta
    settings: GateSettings
    card: dict[str, Any]


Weights = GateTheta | Stored | str | Path | None
_HOW = "give 'default', None, the path of an .npz file or a theta"


def save_theta(
    path: Path | str,
    theta: GateTheta,
    settings: GateSettings,
    card: Mapping[str, Any] | None = None,
) -> None:
    """Writes `path` (.npz) and the card beside it (.json).

    Raises:
      UserError: for weights of another shape than the settings, a name that does not
        end in .npz or an unknown field of the card.
    """
    place = _place(path)
    check_theta(theta, settings, str(place))
    for key in card or {}:
        if key not in CARD:
            raise UserError(f"card: unknown field {key!r}: {nearest(key, CARD)}")
    place.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.asarray(x, np.float32) for name, x in _flat(theta).items()}
    np.savez(place, **arrays)
    row = {**CARD, **(card or {}), "settings": dataclasses.asdict(settings)}
    text = json.dumps(row, indent=2, allow_nan=False)
    place.with_suffix(".json").write_text(text + "\n", "utf-8")


def load_theta(path: Path | str | None = None) -> Stored:
    """The weights of a file; None: the shipped ones.

    Raises:
      UserError: naming the file, and what is missing or wrong in it.
    """
    place = SHIPPED if path is None else _place(path)
    settings, card = _card(place.with_suffix(".json"))
    theta = _theta(_arrays(place), str(place))
    check_theta(theta, settings, str(place))
    for name, x in _flat(theta).items():
        if not np.isfinite(x).all():
            raise UserError(f"{place}: {name}: not all finite")
    return Stored(theta, settings, card)


def resolved(
    weights: Weights, settings: GateSettings | None = None, **changes: Any
) -> tuple[GateTheta | None, GateSettings]:
    """Theta and settings that `weights` stands for; None: the nominal rule.

    Args:
      weights: see `optimizer.learned`; "" is None.
      settings: of a theta or of none; those of a file are its own.
      changes: of single fields of the settings.

    Raises:
      UserError: for what can't be read, and weights of another shape than the settings.
    """
    theta, own = weights, settings or GateSettings()
    if isinstance(weights, Stored):
        theta, own = weights.theta, settings or weights.settings
    elif not isinstance(weights, GateTheta | str | Path | None):
        raise UserError(f"weights: {_HOW}, not a {type(weights).__name__}")
    if isinstance(weights, str | Path) and str(weights):
        if settings is not None:
            raise UserError(
                f"settings: weights={str(weights)!r} bring their own; give a theta to "
                "have others"
            )
        if isinstance(weights, str) and weights != "default" and "." not in weights:
            raise UserError(f"weights: {_HOW}, not {weights!r}")
        found = load_theta(None if weights == "default" else weights)
        theta, own = found.theta, found.settings
    theta = None if isinstance(theta, str) else theta
    between = changes.get("between", own.between)
    of_file = theta is not None and theta is not weights
    if of_file and (between == "learned") != (own.between == "learned"):
        raise UserError(
            f"between: {between!r} does not fit the weights, which were learned with "
            f"{own.between!r}; give that, or other weights"
        )
    own = dataclasses.replace(own, **changes)
    if theta is not None:
        check_theta(theta, own, "weights")
    return theta, own


def _place(path: Path | str) -> Path:
    place = Path(path).expanduser()
    if place.suffix != ".npz":
        raise UserError(f"{path}: weights of a gate are a file whose name ends in .npz")
    return place


def _flat(theta: GateTheta) -> dict[str, Any]:
    own = {k: v for k, v in theta._asdict().items() if k != "mlp"}
    network = theta.mlp._asdict() if theta.mlp is not None else {}
    return own | {f"mlp.{k}": v for k, v in network.items()}


def _arrays(place: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(place, allow_pickle=False) as file:
            return {name: np.asarray(file[name], np.float32) for name in file.files}
    except OSError as error:
        raise UserError(f"{place}: can't be read ({error.strerror or error})") from None
    except (ValueError, TypeError, zipfile.BadZipFile, EOFError, AttributeError) as e:
        raise UserError(f"{place}: no .npz of plain arrays ({e})") from None


def _theta(arrays: Mapping[str, np.ndarray], where: str) -> GateTheta:
    networks = any(name.startswith("mlp.") for name in arrays)
    fields = [name for name in GateTheta._fields if name != "mlp"]
    fields += [f"mlp.{name}" for name in MlpTheta._fields] if networks else []
    for name in arrays:
        if name not in fields:
            raise UserError(f"{where}: unknown array {name!r}: {nearest(name, fields)}")
    for name in fields:
        if name not in arrays:
            raise UserError(f"{where}: the array {name!r} is missing")
    inner = {k[4:]: v for k, v in arrays.items() if k.startswith("mlp.")}
    outer = {k: v for k, v in arrays.items() if "." not in k}
    return GateTheta(**outer, mlp=MlpTheta(**inner) if networks else None)


def _card(place: Path) -> tuple[GateSettings, dict[str, Any]]:
    try:
        row = json.loads(place.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"{place}: can't be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: broken JSON ({error})") from None
    if not isinstance(row, dict) or not isinstance(row.get("settings"), dict):
        raise UserError(f"{place}: the object 'settings' is missing")
    given = dict(row.pop("settings"))
    plain = dataclasses.asdict(GateSettings())
    for key, value in given.items():
        if key not in plain:
            raise UserError(f"{place}: settings: {key!r}: {nearest(key, plain)}")
        kind = list if key == "rules" else type(plain[key])
        number = kind is float and type(value) is int
        if type(value) is not kind and not number:
            raise UserError(f"{place}: settings: {key}: not {value!r:.40}")
    if "rules" in given:
        given["rules"] = tuple(given["rules"])
    for key in row:
        if key not in CARD:
            raise UserError(f"{place}: unknown field {key!r}: {nearest(key, CARD)}")
    if not isinstance(row.get("meta_trained"), bool):
        raise UserError(f"{place}: meta_trained: give true or false")
    return GateSettings(**given), {**CARD, **row}
