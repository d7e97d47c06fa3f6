"""Named architectures and named sizes, as data."""

import json
from pathlib import Path
from typing import Any

from uets_jax.config import ExperimentConfig, ModelConfig, replace_from_dict
from uets_jax.errors import UserError, nearest

PRESETS: dict[str, dict[str, Any]] = {
    # RoPE, QK-norm, RMSNorm, ReLU^2, zero outputs, soft-cap, value residual
    "modern": {
        "position": "rope",
        "norm": "rms",
        "activation": "relu2",
        "qk_norm": True,
        "tied": False,
        "bias": False,
        "zero_init": True,
        "softcap": 15.0,
        "value_residual": True,
    },
    # learned positions, LayerNorm, GELU, biases, tied head
    "gpt2": {
        "position": "learned",
        "norm": "layer",
        "activation": "gelu",
        "qk_norm": False,
        "tied": True,
        "bias": True,
        "zero_init": False,
        "softcap": 0.0,
        "value_residual": False,
    },
}

# name: (depth, width, heads, context); hidden is 4 x width. 14M and 70M count the
# parameters with an untied head and a vocabulary of 50,304.
_SIZES: dict[str, tuple[int, int, int, int]] = {
    "tiny": (2, 32, 2, 32),
    "nano": (4, 128, 4, 128),
    "14M": (6, 128, 4, 1024),
    "micro": (6, 256, 4, 256),
    "70M": (6, 512, 8, 1024),
    "gpt2-small": (12, 768, 12, 1024),
    "gpt2-medium": (24, 1024, 16, 1024),
    "gpt2-large": (36, 1280, 20, 1024),
    "gpt2-xl": (48, 1600, 25, 1024),
}


def sizes() -> tuple[str, ...]:
    """The names that `size` may have, from small to large."""
    return tuple(_SIZES)


def model_config(
    preset: str = "modern", size: str = "nano", **fields: Any
) -> ModelConfig:
    """The config of a named architecture at a named size, `fields` replaced.

    Raises:
      UserError: for an unknown preset, size or field.
    """
    values = _implied({"preset": preset, "size": size, **fields})
    return replace_from_dict(ModelConfig(), values, "model")


def from_dict(values: Any, base: ExperimentConfig | None = None) -> ExperimentConfig:
    """A config from nested dicts (a recipe, a stored `config.json`, command line).

    `model.preset` and `model.size`, where given, name the defaults of the fields that
    they are about (architecture, dimensions); `heads` sets `kv_heads` and `width` sets
    `hidden`. A field that is given itself wins; the others stay as in `base`.

    Raises:
      UserError: for an unknown key or a value of the wrong type.
    """
    model = values.get("model") if isinstance(values, dict) else None
    if isinstance(model, dict):
        values = {**values, "model": _implied(model)}
    return replace_from_dict(base or ExperimentConfig(), values)


def _implied(model: dict[str, Any]) -> dict[str, Any]:
    """`model` and the fields that follow from it, where it doesn't have them itself."""
    filled = dict(model)
    follow = {}
    if "preset" in model:
        follow |= _look_up(PRESETS, "model.preset", model["preset"])
    if "size" in model:
        depth, width, heads, context = _look_up(_SIZES, "model.size", model["size"])
        follow |= {
            "depth": depth,
            "width": width,
            "heads": heads,
            "kv_heads": heads,
            "head_dim": width // heads,
            "hidden": 4 * width,
            "context": context,
        }
    if "heads" in model:
        follow["kv_heads"] = model["heads"]
    if isinstance(model.get("width"), int):
        follow["hidden"] = 4 * model["width"]
    for field, value in follow.items():
        filled.setdefault(field, value)
    return filled


def _look_up(table: dict[str, Any], path: str, name: Any) -> Any:
    if not isinstance(name, str) or name not in table:
        raise UserError(f"{path}: {name!r}: {nearest(str(name), table)}")
    return table[name]


def read_config(path: Path) -> ExperimentConfig:
    """The config in a JSON file: a recipe, or the `config.json` of a run.

    Raises:
      UserError: naming the file, if it can't be read or is no config.
    """
    try:
        return from_dict(_parsed(path.read_bytes()))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except (UserError, RecursionError) as error:
        raise UserError(f"{path}: {error}") from None


def _parsed(raw: bytes) -> Any:
    """The value that JSON text in UTF-8 stands for."""
    try:
        return json.loads(raw.decode())
    except json.JSONDecodeError as error:
        why = f"line {error.lineno} column {error.colno}: {error.msg}"
    except UnicodeDecodeError:
        why = "not UTF-8 text"
    except RecursionError:
        why = "nested too deeply"
    except ValueError as error:
        why = str(error)
    mend = "mend the file or print a valid one with --print-config"
    raise UserError(f"not JSON ({why}); {mend}")
