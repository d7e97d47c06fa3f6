"""Named architectures and named sizes, as data."""

import dataclasses
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

# name: (depth, width, heads, context); hidden is 4 x width, heads are width / head_dim
_SIZES: dict[str, tuple[int, int, int, int]] = {
    "tiny": (2, 32, 2, 32),
    "nano": (4, 128, 4, 128),
    "micro": (6, 256, 4, 256),
    "14M": (6, 256, 4, 512),
    "70M": (8, 512, 8, 1024),
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
    if preset not in PRESETS:
        raise UserError(f"model.preset: {preset!r}: {nearest(preset, PRESETS)}")
    if size not in _SIZES:
        raise UserError(f"model.size: {size!r}: {nearest(size, _SIZES)}")
    depth, width, heads, context = _SIZES[size]
    dimensions = {
        "depth": depth,
        "width": width,
        "heads": heads,
        "kv_heads": heads,
        "head_dim": width // heads,
        "hidden": 4 * width,
        "context": context,
    }
    base = ModelConfig(preset=preset, size=size, **PRESETS[preset], **dimensions)
    fields = dict(fields)
    if "heads" in fields:
        fields.setdefault("kv_heads", fields["heads"])
    if "width" in fields:
        fields.setdefault("hidden", 4 * fields["width"])
    return replace_from_dict(base, fields, "model")


def from_dict(
    values: dict[str, Any], base: ExperimentConfig | None = None
) -> ExperimentConfig:
    """A config from nested dicts (a recipe, a stored `config.json`, command line).

    `model.preset` and `model.size`, where given, name the defaults of the other model
    fields; a field that is given itself wins over them.

    Raises:
      UserError: for an unknown key or a value of the wrong type.
    """
    base = base or ExperimentConfig(model=model_config())
    model = values.get("model") if isinstance(values, dict) else None
    if isinstance(model, dict):
        named = {k: model[k] for k in ("preset", "size") if k in model}
        if named:
            named = {"preset": base.model.preset, "size": base.model.size, **named}
            base = dataclasses.replace(base, model=model_config(**named))
        rest = {k: v for k, v in model.items() if k not in ("preset", "size")}
        filled = dict(rest)
        if "heads" in rest:
            filled.setdefault("kv_heads", rest["heads"])
        if "width" in rest:
            filled.setdefault("hidden", 4 * rest["width"])
        values = {**values, "model": filled}
    return replace_from_dict(base, values)
