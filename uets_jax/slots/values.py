"""What each slot takes: names, configs, one's own parts; checked and made hashable."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import optax

from uets_jax.component import Selection
from uets_jax.config import (
    CurriculumConfig,
    ExperimentConfig,
    GrowthConfig,
    ModelConfig,
    OptimConfig,
    SelectConfig,
    replace_from_dict,
)
from uets_jax.errors import UserError, nearest
from uets_jax.models.presets import from_dict

MODEL = ("init", "forward", "logits")  # what a model of one's own must have


@dataclasses.dataclass(frozen=True)
class MonitorConfig:
    """When the architecture `grow` grows, and what a run is compared with."""

    method: Literal["fixed", "trigger", "probe", "learned"] = "trigger"
    """As `growth.method`; trigger: at a bottleneck, fixed: at the plan's shares."""
    slope: float = GrowthConfig.slope
    """A bottleneck: the loss surely falls by less than so many nats while the FLOPs
    spent grow by a factor e."""
    every: float = GrowthConfig.every
    """Share of the steps between two looks."""
    earliest: float = GrowthConfig.earliest
    """Share of the steps before which nothing grows."""
    baseline: str = ""
    """As `train.baseline`: a file of `uets baseline`."""


class Architecture(NamedTuple):
    """A model and how it grows."""

    model: ModelConfig
    growth: GrowthConfig = GrowthConfig()


SELECTORS = {
    "aql": SelectConfig(method="aql"),
    "aql_target": SelectConfig(method="aql", mode="target"),
    "aql_pool": SelectConfig(method="aql", mode="pool"),
    "loss": SelectConfig(method="loss"),
}
OPTIMIZERS = {
    "learned": OptimConfig(name="learned"),
    "muon": OptimConfig(name="muon"),
    "adamw": OptimConfig(name="adamw", learning_rate=3e-3),
}
CURRICULA = {
    "length": CurriculumConfig(),  # with `lengths`, see `_lengths`
    "competence": CurriculumConfig(difficulty="rarity", pacing="root"),
    "loss": CurriculumConfig(difficulty="loss"),
    "confidence": CurriculumConfig(difficulty="entropy"),
    "progress": CurriculumConfig(difficulty="progress"),
}
MONITORS = {
    name: MonitorConfig(method=name) for name in ("trigger", "probe", "learned")
}


class Slot(NamedTuple):
    """What a slot takes.

    names:  of its presets.
    config: the dataclass of its room.
    own:    whether a value is the user's own, and what that is called.
    """

    names: tuple[str, ...]
    config: type
    own: Callable[[Any], bool]
    called: str


def _is_model(value: Any) -> bool:
    return all(callable(getattr(value, name, None)) for name in MODEL)


SLOTS = {
    "data_selector": Slot(
        (*SELECTORS,),
        SelectConfig,
        lambda value: isinstance(value, Selection),
        "a component.Selection",
    ),
    "architecture": Slot(
        ("grow", "static"),
        ModelConfig,
        lambda value: (
            isinstance(value, Architecture | GrowthConfig | type(None))
            or _is_model(value)
        ),
        "an Architecture(model, growth), a GrowthConfig, or functions with init, "
        "forward and logits",
    ),
    "optimizer": Slot(
        (*OPTIMIZERS,),
        OptimConfig,
        lambda value: isinstance(value, optax.GradientTransformation),
        "an optax.GradientTransformation",
    ),
    "curriculum": Slot(
        (*CURRICULA,),
        CurriculumConfig,
        lambda value: isinstance(value, Selection),
        "a component.Selection where data_selector is None",
    ),
    "monitor": Slot(
        (*MONITORS,),
        MonitorConfig,
        lambda value: False,
        "the path of a baseline, *.json",
    ),
}


def settled(slot: str, value: Any, base: ExperimentConfig) -> Any:
    """The value checked and hashable: a dict becomes the dataclass of the room.

    Args:
      slot: one of `SLOTS`.
      value: see above.
      base: the config whose fields a dict of the architecture replaces.

    Raises:
      UserError: naming the slot and what it takes.
    """
    takes = SLOTS[slot]
    if value is None or isinstance(value, takes.config) or takes.own(value):
        return value
    if isinstance(value, str):
        if value in takes.names:
            return value
        if slot == "monitor" and value.endswith(".json"):
            return MonitorConfig(baseline=value)
    if isinstance(value, dict) and slot == "architecture":
        return _architecture(value, base)
    if isinstance(value, dict):
        return replace_from_dict(takes.config(), value, slot)
    names = ", ".join(map(repr, takes.names))
    hint = nearest(value, takes.names) if isinstance(value, str) else ""
    meant = f"{hint} " if hint.startswith("did you mean") else ""
    raise UserError(
        f"{slot}: {value!r}: {meant}it takes None, {names}, a "
        f"{takes.config.__name__} or a dict of its fields, {takes.called}"
    )


def _architecture(values: dict[str, Any], base: ExperimentConfig) -> Architecture:
    """Of `{"model": {...}, "growth": {...}}`, or of the model's fields alone."""
    rooms = values if set(values) <= {"model", "growth"} else {"model": values}
    still = dataclasses.replace(base, growth=GrowthConfig())
    try:
        found = from_dict(rooms, still)
    except UserError as error:
        raise UserError(f"architecture: {error}") from None
    return Architecture(found.model, found.growth)
