"""What a pilot tries: the plain run, and each method as a change of it."""

import dataclasses
from collections.abc import Callable, Collection
from typing import NamedTuple

from uets_jax.config import (
    SNAPSHOT,
    ExperimentConfig,
    GrowthConfig,
    OptimConfig,
    SelectConfig,
)
from uets_jax.growth.stages import ladder
from uets_jax.slots.fill import architecture
from uets_jax.validation import WITH_ADAM

ROWS = 65536  # of each n-gram table of a start from counts
COUNTED = ("memory_rows", "memory_trained", "backoff_order")  # which a start fills
ONE_LAYER = "depth=2:0.5"  # the plan of growth where there is nothing to begin below


class Method(NamedTuple):
    """A method that a run can be given.

    told:  what it is, in a few words.
    asked: whether a config has it already.
    apply: (a run, the config that was given) -> the run with the method.
    """

    name: str
    told: str
    asked: Callable[[ExperimentConfig], bool]
    apply: Callable[[ExperimentConfig, ExperimentConfig], ExperimentConfig]


def plain(given: ExperimentConfig) -> ExperimentConfig:
    """The run without any of the methods; one that grows has its last size at once.

    Raises:
      UserError: for a plan of growth that can't be read.
    """
    model = ladder(given)[-1].model
    model = dataclasses.replace(
        model,
        frozen=given.model.frozen,
        memory_rows=given.model.memory_rows,
        memory_trained=True,
        backoff_order=0,
    )
    optim = given.optim
    if optim.name == "learned":
        optim = dataclasses.replace(optim, name="muon")
    return dataclasses.replace(
        given,
        model=model,
        optim=optim,
        select=SelectConfig(),
        growth=GrowthConfig(),
        train=dataclasses.replace(given.train, start="random"),
    )


def combined(given: ExperimentConfig, names: Collection[str]) -> ExperimentConfig:
    """The plain run with all methods of these names."""
    config = plain(given)
    for method in METHODS:
        if method.name in names:
            config = method.apply(config, given)
    return config


def _selects(given: ExperimentConfig) -> bool:
    """A snapshot is not there without growth: no selection that stands by itself."""
    select = given.select
    alone = select.method != "none" and select.reference != SNAPSHOT
    return alone or bool(select.target)


def _selected(config: ExperimentConfig, given: ExperimentConfig) -> ExperimentConfig:
    select = given.select
    if select.method == "none":
        mode = "target" if select.target else select.mode
        select = dataclasses.replace(select, method="aql", mode=mode)
    return dataclasses.replace(config, select=select)


def _grown(config: ExperimentConfig, given: ExperimentConfig) -> ExperimentConfig:
    """From one layer to those of the model, doubled at fixed shares of the steps."""
    if given.growth.method != "none":
        kept = {name: getattr(config.model, name) for name in COUNTED}
        model = dataclasses.replace(given.model, **kept)
        return dataclasses.replace(config, model=model, growth=given.growth)
    rooms = architecture("grow", config, None).rooms
    plan = rooms["growth"].plan or ONE_LAYER
    growth = dataclasses.replace(given.growth, method="fixed", plan=plan)
    return dataclasses.replace(config, model=rooms["model"], growth=growth)


def _learned(config: ExperimentConfig, given: ExperimentConfig) -> ExperimentConfig:
    """The shipped gate: at the rate of Muon, which it starts from, where that is what
    the config has, else at its default.
    """
    optim = dataclasses.replace(config.optim, name="learned")
    if given.optim.name not in WITH_ADAM:
        usual = OptimConfig()
        optim = dataclasses.replace(
            optim,
            learning_rate=usual.learning_rate,
            weight_decay=usual.weight_decay,
            momentum=usual.momentum,
            adam_ratio=usual.adam_ratio,
            rest_ratio=usual.rest_ratio,
        )
    if given.optim.name == "schedule_free":
        optim = dataclasses.replace(optim, schedule="wsd")
    return dataclasses.replace(config, optim=optim)


def _counted(config: ExperimentConfig, given: ExperimentConfig) -> ExperimentConfig:
    """As the config has it, or with tables that stay as they were counted."""
    train = dataclasses.replace(config.train, start="counts")
    tables = {name: getattr(given.model, name) for name in COUNTED}
    if given.train.start != "counts":
        tables["memory_rows"] = tables["memory_rows"] or ROWS
        tables["memory_trained"] = False
    model = dataclasses.replace(config.model, **tables)
    return dataclasses.replace(config, model=model, train=train)


METHODS = (
    Method(
        "selection",
        "AQL chooses the windows",
        _selects,
        _selected,
    ),
    Method(
        "growth",
        "the model begins small and grows at fixed times",
        lambda given: given.growth.method != "none",
        _grown,
    ),
    Method(
        "learned",
        "the shipped learned rule",
        lambda given: given.optim.name == "learned",
        _learned,
    ),
    Method(
        "start",
        "embedding, head and n-gram tables from counts of the text",
        lambda given: given.train.start == "counts",
        _counted,
    ),
)
