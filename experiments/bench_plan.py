"""What the ladder wants run.

    trial  12 per rung at U/4, seed 0, read on valid-A: a coordinate search over rate,
           Adam's multiple of it and batch (with "memories": b1 and momentum, too) that
           starts at what was found for the rung before
    final  3 seeds of every budget, decayed, read on valid-B

b0, b1, b2, b2m, b3 are on record (`foundation.baseline_runs`) and are not run again.
Pure: from the results so far to the jobs that are wanted.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments import arms, search
from experiments.bench_arms import COUNTING, Rung, axes, configure, ladder
from experiments.runner import Job, Measure, Results
from uets_jax.config import ExperimentConfig
from uets_jax.errors import UserError

TRIALS = 12
TUNED = 0.25  # in units: within twice of where most rungs reach T2
EVAL_TOKENS = 100_000  # of valid-A, in a trial
BUDGETS = (0.125, 0.25)  # others as T1 and T2 ask for them
LEAST, MOST = 1 / 64, 1.0
STEPS = 2  # the fewest of a run: a plan of growth has a step before and after
SHORTER = (1 / 2, 3 / 4)  # the next budget, the second where the first pays for no step
AT_UNIT = ("uets", "uets_core")  # rungs that get a run at U in any case


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line says.

    targets: T1 and T2 in bits per byte by (track, mode).
    names:   of the rungs, or their paths; none: all.
    """

    stores: Path
    targets: Mapping[tuple[str, str], tuple[float, float]]
    tracks: tuple[str, ...] = ("clean", "mixture")
    names: tuple[str, ...] = ()
    seeds: int = 3
    trials: int = TRIALS
    unit: float = arms.UNIT


class Ladder:
    """The plan of all rungs that are asked for.

    measure: read off every final run.
    known:   settings by rung, in place of a search.
    """

    def __init__(
        self,
        options: Options,
        measure: Measure | None = None,
        known: Mapping[Rung, Mapping[str, Any]] | None = None,
    ) -> None:
        self.options, self.measure, self.known = options, measure, known or {}
        self._configs: dict[Any, ExperimentConfig] = {}
        self._pays: dict[Any, bool] = {}

    def __call__(self, results: Results) -> list[Job]:
        """All that is wanted by now."""
        jobs: list[Job] = []
        for rung in self.rungs():
            settings = self.tuned(rung, results, jobs)
            if settings is not None:
                jobs += self.finals(rung, settings, results)
        return [*{job.name: job for job in jobs}.values()]

    def rungs(self) -> list[Rung]:
        """Of the tracks and names that are asked for."""
        found = [rung for track in self.options.tracks for rung in ladder(track)]
        names = self.options.names
        asked = lambda rung: not names or rung.name in names or rung.path in names
        return [rung for rung in found if asked(rung)]

    def before(self, rung: Rung) -> Rung | None:
        """The rung whose settings the search starts from."""
        here = [r for r in ladder(rung.track) if r.mode in (rung.mode, "")]
        return next((r for r in here if r.name == rung.after), None)

    def tuned(
        self, rung: Rung, results: Results, jobs: list[Job]
    ) -> dict[str, Any] | None:
        """The settings that the search chose; None, and `jobs` longer, until then."""
        if rung in self.known:
            return dict(self.known[rung])
        grid, before = axes(rung), self.before(rung)
        if before is not None:
            start = self.tuned(before, results, jobs)
            if start is None:
                return None
            grid = started(grid, start)
        losses: dict[search.Point, float | None] = {}
        while (
            point := search.next_point(grid, losses, self.options.trials)
        ) is not None:
            job = self.trial(rung, search.settings(grid, point))
            jobs.append(job)
            if job.name not in results:
                return None
            losses[point] = results[job.name]["bits_per_byte"]
        return search.settings(grid, search.best(losses))

    def trial(self, rung: Rung, settings: Mapping[str, Any]) -> Job:
        """A run of seed 0, read on valid-A."""
        config = self._config(rung, settings, TUNED, 0, "a")
        train = dataclasses.replace(config.train, eval_tokens=EVAL_TOKENS)
        config = dataclasses.replace(config, train=train)
        name = f"trial/{rung.key}_{_words(settings)}"
        return Job(name, config, _labels(rung, "trial", settings, TUNED, 0))

    def finals(
        self, rung: Rung, settings: Mapping[str, Any], results: Results
    ) -> Iterator[Job]:
        """Every budget with every seed; more until T1 and T2 are bracketed."""
        planned = [*BUDGETS, *([MOST] if rung.name in AT_UNIT else [])]
        for budget in planned:
            yield from self.seeds(rung, settings, budget)
        t1, t2 = self.options.targets[rung.track, rung.mode]
        reach = lambda budget: self.mean(rung, settings, budget, results)
        low = min(planned)
        while low > LEAST and (here := reach(low)) and here < t1:
            paid = [low * s for s in SHORTER if self.pays(rung, settings, low * s)]
            if not paid:
                break
            low = paid[0]
            yield from self.seeds(rung, settings, low)
        high = max(planned)
        while high < MOST and (here := reach(high)) and here > t2:
            high *= 2
            yield from self.seeds(rung, settings, high)

    def seeds(
        self, rung: Rung, settings: Mapping[str, Any], budget: float
    ) -> Iterator[Job]:
        """The runs of one budget; their seeds are not those of the trials."""
        for seed in range(1, self.options.seeds + 1):
            config = self._config(rung, settings, budget, seed, "b")
            name = f"final/{rung.key}_u{budget:g}_{_words(settings)}_s{seed}"
            labels = _labels(rung, "final", settings, budget, seed)
            yield Job(name, config, labels, self.measure)

    def pays(self, rung: Rung, settings: Mapping[str, Any], budget: float) -> bool:
        """Whether a budget leaves `STEPS` to train after the statistics; kept."""
        key = (rung, tuple(settings.items()), budget)
        if key not in self._pays:
            try:
                config = self._config(rung, settings, budget, 1, "b")
                self._pays[key] = config.train.steps >= STEPS
            except UserError:
                self._pays[key] = False
        return self._pays[key]

    def mean(
        self, rung: Rung, settings: Mapping[str, Any], budget: float, results: Results
    ) -> float | None:
        """Bits per byte over the seeds of a budget, once all are there."""
        names = [job.name for job in self.seeds(rung, settings, budget)]
        found = [results[name]["bits_per_byte"] for name in names if name in results]
        if len(found) < len(names) or None in found:
            return None
        return sum(found) / len(found)

    def _config(
        self,
        rung: Rung,
        settings: Mapping[str, Any],
        budget: float,
        seed: int,
        half: str,
    ) -> ExperimentConfig:
        """Kept: the plan is asked again and again."""
        key = (rung, tuple(settings.items()), budget, seed, half)
        if key not in self._configs:
            flops = budget * self.options.unit
            self._configs[key] = configure(
                self.options.stores, rung, settings, flops, seed, half
            )
        return self._configs[key]


def started(
    grid: tuple[search.Axis, ...], at: Mapping[str, Any]
) -> tuple[search.Axis, ...]:
    """The grid with its start at the given settings, where they are on it."""
    move = lambda axis: dataclasses.replace(
        axis, start=axis.values.index(at[axis.name])
    )
    return tuple(
        move(axis) if at.get(axis.name) in axis.values else axis for axis in grid
    )


def _labels(
    rung: Rung, stage: str, settings: Mapping[str, Any], budget: float, seed: int
) -> tuple[tuple[str, Any], ...]:
    about: dict[str, Any] = {
        "stage": stage,
        "track": rung.track,
        "mode": rung.mode,
        "arm": rung.name,
        "base": rung.base,
        "parts": " ".join(rung.parts),
        "budget_units": budget,
        "seed": seed,
    }
    if stage == "final" and "backoff" in rung.parts:
        about["counting"] = COUNTING
    return tuple(itertools.chain(about.items(), settings.items()))


def _words(settings: Mapping[str, Any]) -> str:
    return "_".join(f"{value:g}" for value in settings.values())
