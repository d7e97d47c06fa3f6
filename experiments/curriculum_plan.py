"""What the table of curricula wants run, on clean text at U/4.

    random       no curriculum: windows in random order
    difficulty   every measure of difficulty with the linear pacing
    pacing       every pacing with rarity; `constant` admits all, the control
    lengths      length warm-up

All arms are b2 at one learning rate; they have as many steps as random order has, and
what it costs to look at candidates comes on top. Pure: the jobs depend on no result.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

from experiments import arms, tracks
from experiments.aql_plan import RECIPES
from experiments.runner import Job, Measure, Results
from uets_jax.config import CurriculumConfig, ExperimentConfig

TRACK, RECIPE, RATE, BUDGET = "clean", "b2", 0.01, 0.25
EVAL_EVERY = 16  # steps between two points of a curve
CURVE_TOKENS = 16_384  # of valid-A, at each point
DIFFICULTY, PACING = "rarity", "linear"  # the one kept where the other is varied
LENGTHS = ("32:0.1,64:0.3", "32:0.3", "16:0.1,32:0.2,64:0.4")


@dataclasses.dataclass(frozen=True)
class Arm:
    """A line of the table; "" or "none" where it has no such part."""

    difficulty: str = "none"
    pacing: str = ""
    lengths: str = ""

    @property
    def name(self) -> str:
        """As in the record."""
        if self.lengths:
            return f"lengths {self.lengths}"
        return "random" if self == RANDOM else f"{self.difficulty} {self.pacing}"

    @property
    def curriculum(self) -> CurriculumConfig:
        """Of its runs."""
        pacing = self.pacing or PACING
        known: dict[str, Any] = {"difficulty": self.difficulty, "pacing": pacing}
        return CurriculumConfig(**known, lengths=self.lengths)


RANDOM = Arm()


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line says."""

    stores: Path
    seeds: int = 2
    unit: float = arms.UNIT


def choices(field: str) -> tuple[str, ...]:
    """What a field of `CurriculumConfig` may be."""
    return get_args(get_type_hints(CurriculumConfig)[field])


def pacing_arms() -> list[Arm]:
    """Of the table, random order first."""
    found = [RANDOM]
    found += [Arm(name, PACING) for name in choices("difficulty") if name != "none"]
    found += [Arm(DIFFICULTY, name) for name in choices("pacing")]
    found += [Arm(lengths=lengths) for lengths in LENGTHS]
    return [*dict.fromkeys(found)]


class CurriculumPlan:
    """The plan of the table.

    options: of the command line.
    measure: from the name of a job to what is read off its run.
    """

    def __init__(
        self, options: Options, measure: Callable[[str], Measure] | None = None
    ) -> None:
        self.options = options
        self._jobs = [
            self.job(arm, seed, measure)
            for arm in pacing_arms()
            for seed in range(1, options.seeds + 1)
        ]

    def __call__(self, results: Results) -> list[Job]:
        """All runs, whatever came out so far."""
        return self._jobs

    def job(
        self, arm: Arm, seed: int, measure: Callable[[str], Measure] | None = None
    ) -> Job:
        """The run of an arm with a seed."""
        labels = {
            "arm": arm.name,
            "difficulty": arm.difficulty,
            "pacing": arm.pacing,
            "lengths": arm.lengths,
            "track": TRACK,
            "recipe": RECIPE,
            "budget_units": BUDGET,
            "learning_rate": RATE,
            "seed": seed,
        }
        words = arm.name.replace(" ", "-").replace(":", "_").replace(",", "-")
        name = f"pacing/{words}_s{seed}"
        config = configure(self.options, seed, arm.name, arm.curriculum)
        return Job(name, config, tuple(labels.items()), measure and measure(name))


def configure(
    options: Options, seed: int, name: str, curriculum: CurriculumConfig
) -> ExperimentConfig:
    """The run of an arm: its curve is read on valid-A."""
    source = tracks.store(options.stores, TRACK, "a")
    settings = {**RECIPES[RECIPE], "learning_rate": RATE}
    flops = BUDGET * options.unit
    config = arms.config(RECIPE, source, settings, 1, flops, seed)
    curve = {"eval_every": EVAL_EVERY, "eval_tokens": CURVE_TOKENS}
    train = dataclasses.replace(config.train, **curve)
    return dataclasses.replace(config, name=name, curriculum=curriculum, train=train)
