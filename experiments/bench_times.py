"""Seconds of the ladder's steps: all timed on one day, alone, on a quiet machine."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments import arms, tracks
from experiments.bench_plan import TUNED, Ladder
from experiments.records import settings_hash
from experiments.runner import Results, read_file
from experiments.step_times import StepTime, step_time
from uets_jax.config import ExperimentConfig, SelectConfig
from uets_jax.growth.stages import ladder as stages_of
from uets_jax.growth.stages import parse
from uets_jax.train.files import write_json


@dataclasses.dataclass(frozen=True)
class RungTime:
    """What a rung takes on a quiet machine.

    stages:  (share of the steps, its step) of every shape of the model.
    control: seconds of deciding over those of the first step; None: not timed.
    """

    stages: tuple[tuple[float, StepTime], ...]
    control: float | None = None

    def seconds(self, steps: int) -> float:
        """Of a run, without compilation and evaluation."""
        _, first = self.stages[0]
        each = sum(share * step.step_seconds for share, step in self.stages)
        return first.start_seconds + steps * each

    @property
    def compile_seconds(self) -> float:
        """Of all shapes."""
        return sum(step.compile_seconds for _, step in self.stages)

    @property
    def peak_bytes(self) -> int | None:
        """Of the largest step; None where XLA says nothing."""
        peaks = [s.peak_bytes for _, s in self.stages if s.peak_bytes is not None]
        return max(peaks, default=None)


class Times:
    """Times a step once; kept in a file.

    path: of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known = read_file(path) or {"config_hash": "", "steps": {}}

    def __call__(self, config: ExperimentConfig) -> RungTime:
        """Of a run: each shape of its model timed alone."""
        found = shares(config)
        stages = tuple((share, self.step(stage)) for share, stage in found)
        _, first = found[0]
        plain = undecided(first)
        if plain == first:
            return RungTime(stages, 0.0)
        whole = self.step(first).step_seconds
        return RungTime(stages, 1 - self.step(plain).step_seconds / whole)

    def step(self, config: ExperimentConfig) -> StepTime:
        """Of a model of one shape."""
        one = alone(config)
        key = settings_hash(dataclasses.asdict(one))
        if key not in self.known["steps"]:
            self.known["steps"][key] = dataclasses.asdict(step_time(one))
            write_json(self.path, self.known)
        return StepTime(**self.known["steps"][key])


def undecided(config: ExperimentConfig) -> ExperimentConfig:
    """The run without selection and with Muon in place of the learned rule."""
    name = "muon" if config.optim.name == "learned" else config.optim.name
    optim = dataclasses.replace(config.optim, name=name)
    return dataclasses.replace(config, select=SelectConfig(), optim=optim)


def rung_times(plan: Ladder, results: Results, times: Times) -> dict[str, RungTime]:
    """Of every rung whose settings are known."""
    found = {}
    for rung in plan.rungs():
        settings = plan.tuned(rung, results, [])
        if settings is not None:
            found[rung.key] = times(next(plan.seeds(rung, settings, TUNED)).config)
    return found


def baseline_time(stores: Path, run: Mapping[str, Any], times: Times) -> RungTime:
    """Of a run of `foundation.baseline_runs`; which text it reads takes no time."""
    recipe, depth = run["recipe"], run["depth"]
    settings = {axis.name: run[axis.name] for axis in arms.axes(recipe)}
    source = tracks.store(stores, run["track"], "b")
    return times(arms.config(recipe, source, settings, depth, arms.UNIT))


def shares(config: ExperimentConfig) -> list[tuple[float, ExperimentConfig]]:
    """(share of the steps, config) of every stage of a run's growth."""
    starts = [0.0, *(stage.share for stage in parse(config.growth)), 1.0]
    configs = stages_of(config)
    return [(starts[i + 1] - starts[i], one) for i, one in enumerate(configs)]


def alone(config: ExperimentConfig) -> ExperimentConfig:
    """The run without growth and of one length, so that equal steps are timed once."""
    usual = ExperimentConfig()
    train = dataclasses.replace(config.train, steps=1000, seed=0)
    optim = dataclasses.replace(config.optim, learning_rate=0.01, warmup=0)
    return dataclasses.replace(
        config, name="step", growth=usual.growth, train=train, optim=optim
    )
