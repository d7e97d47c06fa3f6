"""The whole system behind one call: five slots, a budget, a text."""

import dataclasses
import operator
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any, Literal

from uets_jax.build import build
from uets_jax.config import ExperimentConfig
from uets_jax.data.loading import load
from uets_jax.data.store import prepare
from uets_jax.errors import UserError
from uets_jax.models.closed_form import LARGEST
from uets_jax.slots import fill
from uets_jax.slots.dataset import source_of
from uets_jax.slots.trained import Report, Trained, TrainedModel
from uets_jax.slots.values import SLOTS, settled
from uets_jax.step import evaluated
from uets_jax.train import loop
from uets_jax.train.budget import steps_for
from uets_jax.train.counting import NEEDS

CHECKS = 20  # validations that may end a run with a target


@dataclasses.dataclass(frozen=True, kw_only=True)
class UltraEfficientTrainingSystem:
    """Trains to a given quality for less: chooses the data, grows the model, learns.

    A face of `train.loop.train` and nothing beside it: the slots become an
    `ExperimentConfig` and overrides of `build`. A slot is None (its ablation), a name,
    a config or a dict of its fields, or the user's own part:

    data_selector: "aql" | "aql_target" (needs `sample`) | "aql_pool" | "loss" |
      SelectConfig | `component.Selection`.
    architecture: "grow" (begins with one layer, grows at a bottleneck to the depth of
      `config`) | "static" | ModelConfig | GrowthConfig | `Architecture` | {"model":
      {...}, "growth": {...}} | functions init, forward, logits.
    optimizer: "learned" | "muon" | "adamw" | OptimConfig |
      `optax.GradientTransformation`.
    curriculum: "length" (short rows first) | "competence" | and without a selector
      "loss", "confidence", "progress", which follow what the model says |
      CurriculumConfig | `component.Selection`, which also learns from each step.
    monitor: when "grow" grows: "trigger" (at a bottleneck) | "probe" | "learned";
      MonitorConfig | the path of a baseline, *.json, to be compared with.

        from dataclasses import replace
        from uets_jax.models.presets import from_dict
        from uets_jax.system import UltraEfficientTrainingSystem

        small = from_dict({"data": {"tokenizer": "bytes"}, "model": {"size": "tiny"}})
        system = UltraEfficientTrainingSystem(config=small, steps=20, out="runs/first")
        plain = replace(system, data_selector=None, optimizer="adamw", curriculum=None)
        model, state, report = plain.train("texts")
        print(f"{report.summary['bits_per_byte']:.2f} bits per byte: {report.path}")
        print(model.generate("The ", tokens=20))

    Args:
      steps, flops: the budget, at most one of them; FLOPs are those of training. With
        neither, `config.train.steps`. With a target it is a limit, and the checks of
        the target come on top of it.
      seed: of the initial parameters and the order of the data.
      start: "counts", embedding, head and n-gram tables in closed form, wherever the
        model allows it (an own head, a vocabulary of at most 8,192); or "random".
      sample: source of target text for "aql_target".
      out: the run's folder.
      config: everything else, such as batch, tokenizer, size.

    Raises:
      UserError: naming the slot, and what it takes.
    """

    data_selector: Any = "aql"
    architecture: Any = "grow"
    optimizer: Any = "learned"
    curriculum: Any = "length"
    monitor: Any = "trigger"
    steps: int = 0
    flops: int | float = 0
    seed: int = 0
    start: Literal["counts", "random"] = "counts"
    sample: str = ""
    out: str | Path = "runs/system"
    config: ExperimentConfig = ExperimentConfig()

    def __post_init__(self) -> None:
        for slot in SLOTS:
            value = settled(slot, getattr(self, slot), self.config)
            object.__setattr__(self, slot, value)
        if self.steps and self.flops:
            raise UserError("steps, flops: give one of them")
        if self.steps < 0 or self.flops < 0:
            raise UserError("steps, flops: must not be negative")

    def train(
        self,
        dataset: str | Path,
        target_performance: float | None = None,
        resume: bool = False,
    ) -> Trained:
        """Trains on a text, until the budget or the target is reached.

        Args:
          dataset: a source as `data.source` takes it, or a path: a folder of text
            files or of tokens, a text or a JSONL file.
          target_performance: bits per byte of held-out text, at which the run ends.
          resume: go on with the run in `out`.

        Raises:
          UserError: as `train.loop.train`, and for a text that isn't there.
        """
        config, overrides = self.plan(dataset, target_performance)
        result = loop.train(config, self.out, resume, overrides)
        program = build(result.config, overrides)
        out = Path(self.out).absolute()
        tokenizer = load(str(out / "tokenizer.json"))
        params = evaluated(program, result.state)
        model = TrainedModel(result.config, program, tokenizer, params)
        return Trained(
            model,
            result.state,
            Report(out / "report.html", result.summary, (*overrides,)),
        )

    def plan(
        self, dataset: str | Path, target_performance: float | None = None
    ) -> tuple[ExperimentConfig, dict[str, Any]]:
        """(config, overrides) that `train.loop.train` is given; see `train`."""
        config, overrides = self._filled()
        watched = fill.watched(self.monitor)
        train = dataclasses.replace(
            config.train,
            seed=self.seed,
            steps=self.steps or config.train.steps,
            baseline=watched.baseline or config.train.baseline,
        )
        data = dataclasses.replace(config.data, source=source_of(dataset))
        config = dataclasses.replace(config, data=data, train=train)
        train = dataclasses.replace(train, start=self._start(config, overrides))
        config = dataclasses.replace(config, train=train)
        if self.flops:
            steps = steps_for(config, self.flops, overrides)
            train = dataclasses.replace(config.train, steps=steps)
            config = dataclasses.replace(config, train=train)
        if target_performance is not None:
            config = with_target(config, target_performance)
        return config, overrides

    def _filled(self) -> tuple[ExperimentConfig, dict[str, Any]]:
        base = self.config
        parts = [
            fill.architecture(self.architecture, base, self.monitor),
            fill.optimizer(self.optimizer, base),
            fill.data_selector(self.data_selector, base, self.sample),
        ]
        shaped = dataclasses.replace(base, **parts[0].rooms)
        parts.append(fill.curriculum(self.curriculum, shaped, self.data_selector))
        rooms: Mapping[str, Any] = reduce(operator.or_, (dict(p.rooms) for p in parts))
        own = reduce(operator.or_, (dict(p.overrides) for p in parts))
        return dataclasses.replace(base, **rooms), own

    def _start(
        self, config: ExperimentConfig, overrides: Mapping[str, Any]
    ) -> Literal["counts", "random"]:
        """Counts, where the model allows it; may look at the tokenizer of the text."""
        if config.model.tied or set(NEEDS) & set(overrides):
            return "random"
        if self.start == "counts" and vocabulary(config) > LARGEST:
            return "random"
        return self.start


def vocabulary(config: ExperimentConfig) -> int:
    """Tokens of the model that a run will have.

    Raises:
      UserError: for data that can't be read, where only they tell.
    """
    kind, _, rows = config.data.tokenizer.partition(":")
    if config.data.source.startswith("tokens:") or kind not in ("bytes", "bpe"):
        own = prepare(config.data).tokenizer.vocab_size
    else:
        own = int(rows) if rows.isdigit() else 0
    return max(config.model.vocab, own)


def with_target(config: ExperimentConfig, target: float) -> ExperimentConfig:
    """The run that ends at `target` bits per byte: at full rate until a validation of
    the averaged weights, `CHECKS` of them at least, says that a cool-down reaches it.
    """
    often = max(1, config.train.steps // CHECKS)
    every = min(config.train.eval_every or often, often)
    train = dataclasses.replace(config.train, target=float(target), eval_every=every)
    optim = dataclasses.replace(config.optim, schedule="wsd", average=0.1)
    return dataclasses.replace(config, train=train, optim=optim)
