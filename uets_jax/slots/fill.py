"""From the value of a slot to rooms of the config and overrides of `build`."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import optax

from uets_jax.component import Selection
from uets_jax.config import (
    CurriculumConfig,
    ExperimentConfig,
    GrowthConfig,
    ModelConfig,
    SelectConfig,
    window_length,
)
from uets_jax.errors import UserError
from uets_jax.slots.values import (
    CURRICULA,
    MODEL,
    MONITORS,
    OPTIMIZERS,
    SELECTORS,
    Architecture,
    MonitorConfig,
)


class Filled(NamedTuple):
    """What a slot puts into a run."""

    rooms: Mapping[str, Any]  # of the config, by name
    overrides: Mapping[str, Any] = {}


def architecture(value: Any, config: ExperimentConfig, monitor: Any) -> Filled:
    """`grow`: from one layer to those of the config, doubled at every bottleneck."""
    model, own = config.model, {}
    growth = GrowthConfig()
    if value == "grow":
        growth = _doubling(model.depth, watched(monitor))
        model = dataclasses.replace(model, depth=1, frozen=0)
    elif isinstance(value, ModelConfig):
        model = value
    elif isinstance(value, GrowthConfig):
        growth = value
    elif isinstance(value, Architecture):
        model, growth = value
    elif value is not None and value != "static":
        there = (*MODEL, *(["inspect"] if hasattr(value, "inspect") else []))
        own = {name: getattr(value, name) for name in there}
    return Filled({"model": model, "growth": growth}, own)


def _doubling(depth: int, monitor: MonitorConfig) -> GrowthConfig:
    """From one layer to `depth`; the last stage after 60 % of the steps at the latest.

    One layer stays one.
    """
    sizes = [2**n for n in range(1, depth.bit_length()) if 2**n < depth]
    sizes += [depth] if depth > 1 else []
    shares = (0.6 * (i + 1) / len(sizes) for i in range(len(sizes)))
    plan = ",".join(f"depth={n}:{s:.3g}" for n, s in zip(sizes, shares, strict=True))
    if not plan:
        return GrowthConfig()
    how = {f: getattr(monitor, f) for f in ("method", "slope", "every", "earliest")}
    return GrowthConfig(plan=plan, **how)


def watched(value: Any) -> MonitorConfig:
    """Of the slot `monitor`; None: growth comes at the shares of its plan."""
    if value is None:
        return MonitorConfig(method="fixed")
    return MONITORS[value] if isinstance(value, str) else value


def data_selector(value: Any, config: ExperimentConfig, sample: str) -> Filled:
    """`sample`: the source of target text that the preset `aql_target` sees.

    A Selection of one's own is offered `config.select.candidates` windows for each one
    that is trained on.
    """
    if isinstance(value, Selection):
        offered = config.select.candidates
        method = "loss"  # offers a pool and keeps no assets; its choice is overridden
        select = SelectConfig(method=method, candidates=offered)
        return Filled({"select": select}, {"select": value})
    select: Any = SelectConfig() if value is None else SELECTORS.get(value, value)
    if value == "aql_target":
        if not sample:
            raise UserError(
                "data_selector: 'aql_target' needs a sample of target text: sample= "
                "files:GLOB, ..."
            )
        select = dataclasses.replace(select, target=sample)
    return Filled({"select": select})


def optimizer(value: Any, config: ExperimentConfig) -> Filled:
    """None is the ablation of the learned rule: Muon, which its gate starts from."""
    if isinstance(value, optax.GradientTransformation):
        return Filled({"optim": config.optim}, {"tx": value})
    named = OPTIMIZERS.get("muon" if value is None else value, value)
    return Filled({"optim": named})


def curriculum(value: Any, config: ExperimentConfig, selector: Any) -> Filled:
    """A Selection of one's own orders and weighs what it is offered."""
    if isinstance(value, Selection):
        if selector is not None:
            raise UserError(
                "curriculum: a Selection of your own orders and chooses at once; set "
                "data_selector to None"
            )
        rooms = dict(data_selector(value, config, "").rooms)
        return Filled({**rooms, "curriculum": CurriculumConfig()}, {"select": value})
    if value is None:
        return Filled({"curriculum": CurriculumConfig()})
    found: Any = CURRICULA.get(value, value)
    if value == "length":
        lengths = _lengths(window_length(config))
        found = dataclasses.replace(found, lengths=lengths)
    return Filled({"curriculum": found})


def _lengths(full: int) -> str:
    """Quarter windows for the first tenth of the steps, half ones up to 30 %."""
    if full % 4:
        raise UserError(
            f"curriculum: 'length' needs windows that four divides, got {full}; give "
            "{'lengths': '...'} or None"
        )
    return f"{full // 4}:0.1,{full // 2}:0.3"
