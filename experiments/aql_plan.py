"""What the tables of AQL v2 want run, on the mixture pool and on clean text.

    rate    the learning rate of every arm, a search on valid-A at U/4 (uniform: U/2)
    final   3 seeds of every budget, decayed, read on valid-B
    part    at U/4: without each part, and the simple ways to choose

All arms are b2 (or b2m where the name says so) with nothing changed but the data and
the learning rate. Pure: from the results so far to the jobs that are wanted.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments import arms, search, tracks
from experiments.runner import Job, Results
from uets_jax.config import (
    CurriculumConfig,
    ExperimentConfig,
    KnobsConfig,
    SelectConfig,
    window_length,
)

RECIPES: dict[str, dict[str, Any]] = {
    "b2": {"batch": 8, "weight_decay": 0.0, "schedule": "wsd", "warmup": 0.02}
    | {"adam_ratio": 1.0},
    "b2m": {"batch": 32, "weight_decay": 0.0, "schedule": "wsd", "warmup": 0.02}
    | {"adam_ratio": 4.0},
}
RATES = arms.MUON_RATES
RATE_TRIALS = 5
EVAL_TOKENS = 100_000  # of valid-A, while tuning
MOST_CANDIDATES, LEAST_CANDIDATES = 16, 2
FORWARDED = 4  # candidates per row of the arms that forward them
MODES = ("target", "blind")
SHARED = {"target": (0.125, 0.25, 0.5), "blind": (0.125, 0.25, 0.5, 1.0)}


@dataclasses.dataclass(frozen=True)
class Arm:
    """A line of a table.

    name:    as in the record.
    mode:    what it may know: target, blind, or "" where it does not matter.
    text:    the store that it trains on.
    track:   mixture or clean.
    recipe:  b2 or b2m.
    select:  (field, value) pairs of its selection; none: uniform.
    budgets: in units of U, of the final runs.
    tuned:   budget of the search of its rate, in units; 0: that of `like`.
    like:    name of the arm whose rate it takes.
    lengths: of a length warm-up.
    seeds:   at most so many.
    rate:    given, and not searched.
    """

    name: str
    mode: str
    text: str
    track: str = "mixture"
    recipe: str = "b2"
    select: tuple[tuple[str, Any], ...] = ()
    budgets: tuple[float, ...] = (0.125, 0.25, 0.5)
    tuned: float = 0.25
    like: str = ""
    lengths: str = ""
    seeds: int = 5
    rate: float = 0.0

    @property
    def key(self) -> str:
        """Names its runs."""
        return "_".join(filter(None, (self.track, self.recipe, self.name, self.mode)))


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line says."""

    stores: Path
    tables: tuple[str, ...]
    seeds: int = 3
    unit: float = arms.UNIT
    windows: int = 77_833  # of the pool, for one pass at most


AQL = (("method", "aql"),)


def main_arms() -> list[Arm]:
    """The table of the mixture track."""
    b3 = {"target": "b3.target.0.15", "blind": "b3.blind.0.3"}
    found = [Arm("uniform", "", "mixture", budgets=(0.5, 1.0), tuned=0.5)]
    found += [Arm("b3", mode, b3[mode], budgets=SHARED[mode]) for mode in MODES]
    rho = (("method", "rho"), ("candidates", FORWARDED))
    found.append(Arm("rho", "target", "mixture", select=rho, budgets=(0.25, 0.5)))
    found += [
        Arm("aql_v2", mode, "mixture", select=AQL, budgets=SHARED[mode])
        for mode in MODES
    ]
    found.append(Arm("oracle", "", "oracle.target"))
    return found


def table_arms() -> list[Arm]:
    """Against b3 at T2, with n-gram tables: recipe and rate of the baselines' b3.

    b3 itself is in the record of the baselines.
    """
    shared: dict[str, Any] = {"recipe": "b2m", "budgets": (1.0,), "rate": 0.01}
    return [Arm("aql_v2", mode, "mixture", select=AQL, **shared) for mode in MODES]


def part_arms() -> list[Arm]:
    """Leave-one-out, and the simple ways."""
    one: dict[str, Any] = {"text": "mixture", "budgets": (0.25,), "tuned": 0.0}
    one["seeds"] = 2
    make = lambda name, select: Arm(name, "target", select=select, like="aql_v2", **one)
    changed = {
        "without uncertainty": (("uncertainty", False),),
        "without novelty": (("novelty", False),),
        "without order": (("natural", False),),
        "without documents": (("run", 1),),
        "without buffer": (("buffer", 8),),
        "with the bandit": (("policy", True),),
        "with the switch": (("switch", True),),
        "uncertainty weighs 0.5": (("knobs", (("uncertainty", 0.5),)),),
        "progress weighs 0.5": (("knobs", (("progress", 0.5),)),),
        "de-duplication only": (("natural", False), ("lexical", False)),
        "n-grams only": (("natural", False), ("novelty", False)),
    }
    found = [make(name, (*AQL, *off)) for name, off in changed.items()]
    high = (("method", "loss"), ("candidates", FORWARDED))
    found.append(Arm("high loss", "", select=high, like="uniform", **one))
    found.append(Arm("uniform at U/4", "", like="uniform", **one))
    return found


def clean_arms() -> list[Arm]:
    """On clean text, where there is nothing to choose."""
    shared: dict[str, Any] = {"track": "clean", "budgets": (0.25,)}
    same = {**shared, "tuned": 0.0, "like": "uniform"}
    return [
        Arm("uniform", "", "clean", **shared),
        Arm("aql_v2", "blind", "clean", select=AQL, **same),
        Arm("aql_v2", "pool", "clean", select=AQL, **same),
        Arm("length warm-up", "", "clean", lengths="32:0.1,64:0.3", **same),
    ]


TABLES = {
    "mixture": main_arms,
    "parts": part_arms,
    "clean": clean_arms,
    "tables": table_arms,
}


def origin(arm: Arm) -> Arm:
    """The arm whose rate an arm takes, of its track and mode."""
    tuned = [a for a in [*main_arms(), *clean_arms()] if a.tuned]
    alike = (a for a in tuned if (a.name, a.track) == (arm.like, arm.track))
    return next(a for a in alike if a.mode in ("", arm.mode))


class AqlPlan:
    """The plan of the tables that are asked for."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._configs: dict[Any, ExperimentConfig] = {}

    def __call__(self, results: Results) -> list[Job]:
        """All that is wanted by now."""
        jobs: list[Job] = []
        for arm in self.arms():
            rate = self.rate(arm, results, jobs)
            if rate is not None:
                jobs += self.finals(arm, rate)
        return [*{job.name: job for job in jobs}.values()]  # arms share a search

    def arms(self) -> list[Arm]:
        """Of the tables that are asked for, and those whose rate they take."""
        found = [arm for table in self.options.tables for arm in TABLES[table]()]
        return [*dict.fromkeys([*found, *(origin(a) for a in found if a.like)])]

    def rate(self, arm: Arm, results: Results, jobs: list[Job]) -> float | None:
        """The best learning rate; what it takes to know it is added to `jobs`."""
        if arm.rate:
            return arm.rate
        if not arm.tuned:
            return self.rate(origin(arm), results, jobs)
        axis = search.Axis("learning_rate", RATES, RATES.index(0.01))
        losses: dict[tuple[int, ...], float | None] = {}
        while (point := search.next_point((axis,), losses, RATE_TRIALS)) is not None:
            job = self.trial(arm, axis.values[point[0]])
            jobs.append(job)
            if job.name not in results:
                return None
            losses[point] = results[job.name]["bits_per_byte"]
        return axis.values[search.best(losses)[0]]

    def trial(self, arm: Arm, rate: float) -> Job:
        """A run of seed 0, read on valid-A."""
        config = self.config(arm, arm.tuned, 0, rate, "a")
        train = dataclasses.replace(config.train, eval_tokens=EVAL_TOKENS)
        config = dataclasses.replace(config, train=train)
        name = f"rate/{arm.key}_u{arm.tuned:g}_{rate:g}"
        return Job(name, config, self._labels(arm, "rate", arm.tuned, 0, rate))

    def finals(self, arm: Arm, rate: float) -> Iterator[Job]:
        """Every budget with every seed; their seeds are not those of the trials."""
        for budget in arm.budgets:
            for seed in range(1, min(self.options.seeds, arm.seeds) + 1):
                config = self.config(arm, budget, seed, rate, "b")
                labels = self._labels(arm, "final", budget, seed, rate)
                name = f"final/{arm.key}_u{budget:g}_{rate:g}_s{seed}".replace(" ", "-")
                yield Job(name, config, labels)

    def config(
        self, arm: Arm, budget: float, seed: int, rate: float, half: str
    ) -> ExperimentConfig:
        """The run of an arm; the plan is asked again and again, so it is kept."""
        key = (arm, budget, seed, rate, half)
        if key not in self._configs:
            self._configs[key] = configure(self.options, *key)
        return self._configs[key]

    def _labels(
        self, arm: Arm, stage: str, budget: float, seed: int, rate: float
    ) -> tuple[tuple[str, Any], ...]:
        labels = {
            "stage": stage,
            "arm": arm.name,
            "mode": arm.mode,
            "track": arm.track,
            "recipe": arm.recipe,
            "text": arm.text,
            "budget_units": budget,
            "seed": seed,
            "learning_rate": rate,
        }
        return tuple(labels.items())


def configure(
    options: Options, arm: Arm, budget: float, seed: int, rate: float, half: str
) -> ExperimentConfig:
    """The config of a run.

    The budget is that of the steps with nothing chosen: what choosing costs comes on
    top, and is in the FLOPs that the tables compare.
    """
    source = tracks.store(options.stores, arm.text, half)
    settings = {**RECIPES[arm.recipe], "learning_rate": rate}
    flops = budget * options.unit
    config = arms.config(arm.recipe, source, settings, 1, flops, seed)
    curriculum = CurriculumConfig(lengths=arm.lengths)
    select = selection(options, arm, config)
    name = f"{arm.name} {arm.mode}".strip()
    return dataclasses.replace(config, name=name, select=select, curriculum=curriculum)


def selection(options: Options, arm: Arm, config: ExperimentConfig) -> SelectConfig:
    """The arm's selection: as many candidates as one pass over the text has."""
    if not arm.select:
        return SelectConfig()
    given = dict(arm.select)
    trained = config.train.steps * config.train.batch
    windows = options.windows * 128 // window_length(config)
    once = min(max(windows // trained, LEAST_CANDIDATES), MOST_CANDIDATES)
    knobs = KnobsConfig(**dict(given.pop("knobs", ())))
    values: dict[str, Any] = {"candidates": once, **given}
    if given["method"] == "aql":
        values["mode"] = arm.mode or "blind"
        if arm.mode == "target":
            values["target"] = f"jsonl:{options.stores}/pool/sample.jsonl"
    if given["method"] == "rho":
        values["reference"] = f"{options.stores}/reference.npy"
    if arm.mode == "pool":
        values["candidates"] = LEAST_CANDIDATES
    return SelectConfig(**{**values, "knobs": knobs})
