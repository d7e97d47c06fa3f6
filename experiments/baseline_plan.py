"""What the table of baselines wants run: tuning, sizes, the pool, the final runs.

    tune    up to 20 trials per arm on clean at U/4, one layer: a coordinate search
    size    depths 1, 2, 4 on clean at U/2, the rate searched again for each
    pool    on mixture at U/2: the rate searched again, the other depths looked at
    share   for b3 and oracle the part of the pool that is kept, at U/2
    final   3 seeds of every budget, decayed, read on valid-B

Pure: from the results so far to the jobs that are wanted and the choices made.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import arms, search, tracks
from experiments.runner import Job, Measure, Results
from uets_jax.config import ExperimentConfig

STAGES = ("tune", "size", "pool", "share")  # of the trials
TRIALS = 20
RATE_TRIALS = 5
NEAR = 0.5  # in units: within twice of U, and of where most arms reach T1
EVAL_TOKENS = 100_000  # of valid-A, while tuning
ARMS = ("b0", "b1", "b2", "b2m")
MODES = ("target", "blind")
SHARES = (0.07, 0.1, 0.15, 0.2, 0.3, 0.4)  # of the pool's tokens that b3 keeps
BUDGETS = {"b0": (0.5, 1.0), "b1": (0.25, 0.5, 1.0)}
MANY = (0.125, 0.25, 0.5, 1.0)  # of all others
LEAST, MOST = 1 / 32, 2.0


@dataclasses.dataclass(frozen=True)
class Choice:
    """How an arm is run: its number of layers and its settings."""

    arm: str
    depth: int
    settings: tuple[tuple[str, Any], ...]

    def replace(self, **changes: Any) -> "Choice":
        """With other settings, or another `depth`."""
        depth = changes.pop("depth", self.depth)
        settings = tuple({**dict(self.settings), **changes}.items())
        return Choice(self.arm, depth, settings)


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table: an arm on a track, and the text that it trains on."""

    arm: str
    track: str
    mode: str
    text: str
    choice: Choice

    @property
    def name(self) -> str:
        """Of its runs."""
        return "_".join(part for part in (self.arm, self.mode) if part)


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line says of the plan."""

    stores: Path
    tracks: tuple[str, ...] = ("clean", "mixture")
    seeds: int = 3
    unit: float = arms.UNIT
    tune_only: bool = False


class Baselines:
    """The plan of the whole table.

    options: of the command line.
    measure: read off every final run.
    """

    def __init__(self, options: Options, measure: Measure | None = None) -> None:
        self.options, self.measure = options, measure
        self._configs: dict[Any, ExperimentConfig] = {}

    def __call__(self, results: Results) -> list[Job]:
        """All that is wanted by now; see `runner.run_queue`."""
        jobs: list[Job] = []
        rows = self.rows(results, jobs)
        if not self.options.tune_only:
            jobs += [job for row in rows for job in self.finals(row, rows, results)]
        return jobs

    def rows(self, results: Results, jobs: list[Job]) -> list[Row]:
        """The rows whose settings are known; what it takes to know more is added to
        `jobs`.
        """
        tuned = {arm: self.tuned(arm, results, jobs) for arm in ARMS}
        sized = {
            arm: self.sized(choice, results, jobs)
            for arm, choice in tuned.items()
            if choice
        }
        known = {arm: choice for arm, choice in sized.items() if choice}
        found = []
        if "clean" in self.options.tracks:
            found += [Row(arm, "clean", "", "clean", c) for arm, c in known.items()]
        if "mixture" in self.options.tracks:
            found += self.pool_rows(known, results, jobs)
        return found

    def tuned(self, arm: str, results: Results, jobs: list[Job]) -> Choice | None:
        """After the coordinate search on clean."""
        axes, losses = arms.axes(arm), {}
        while (point := search.next_point(axes, losses, TRIALS)) is not None:
            settings = search.settings(axes, point)
            choice = Choice(arm, 1, tuple(settings.items()))
            job = self.trial("tune", "clean", choice, 0.25)
            jobs.append(job)
            if job.name not in results:
                return None
            losses[point] = results[job.name]["bits_per_byte"]
        best = search.settings(axes, search.best(losses))
        return Choice(arm, 1, tuple(best.items()))

    def sized(self, choice: Choice, results: Results, jobs: list[Job]) -> Choice | None:
        """The best depth, each with a rate of its own, on clean."""
        found = [
            self.best_rate(
                "size", "clean", choice.replace(depth=d), NEAR, results, jobs
            )
            for d in arms.DEPTHS
        ]
        return _least(found)

    def best_rate(
        self,
        stage: str,
        text: str,
        choice: Choice,
        budget: float,
        results: Results,
        jobs: list[Job],
    ) -> tuple[float, Choice] | None:
        """(bits per byte, choice) of the best rate near the choice's own."""
        axis = arms.axes(choice.arm)[0]
        place = axis.values.index(dict(choice.settings)["learning_rate"])
        axes, losses = (dataclasses.replace(axis, start=place),), {}
        while (point := search.next_point(axes, losses, RATE_TRIALS)) is not None:
            here = choice.replace(learning_rate=axis.values[point[0]])
            job = self.trial(stage, text, here, budget)
            jobs.append(job)
            if job.name not in results:
                return None
            losses[point] = results[job.name]["bits_per_byte"]
        point = search.best(losses)
        best = choice.replace(learning_rate=axis.values[point[0]])
        return losses[point], best  # pyright: ignore[reportReturnType]

    def pool_rows(
        self, sized: Mapping[str, Choice], results: Results, jobs: list[Job]
    ) -> list[Row]:
        """The rows on mixture: the arms as they are, then b3 and oracle."""
        found = {
            arm: self.on_pool("mixture", choice, results, jobs)
            for arm, choice in sized.items()
        }
        known = {arm: best for arm, best in found.items() if best}
        rows = [Row(arm, "mixture", "", "mixture", c) for arm, (_, c) in known.items()]
        if not {"b2", "b2m"} <= known.keys():
            return rows
        recipe = min((known["b2"], known["b2m"]), key=lambda pair: pair[0])[1]
        for mode in MODES:
            rows += self.cleaned_row("b3", mode, recipe, results, jobs)
        return rows + self.cleaned_row("oracle", "", recipe, results, jobs)

    def on_pool(
        self, text: str, choice: Choice, results: Results, jobs: list[Job]
    ) -> tuple[float, Choice] | None:
        """The best rate at the choice's depth, then the other depths with that rate."""
        best = self.best_rate("pool", text, choice, NEAR, results, jobs)
        if best is None:
            return None
        others = [best[1].replace(depth=d) for d in arms.DEPTHS if d != choice.depth]
        trials = [self.trial("pool", text, other, NEAR) for other in others]
        jobs += trials
        if any(job.name not in results for job in trials):
            return None
        bits = [results[job.name]["bits_per_byte"] for job in trials]
        found = [best, *((b, c) for b, c in zip(bits, others, strict=True) if b)]
        return min(found, key=lambda pair: pair[0])

    def cleaned_row(
        self, arm: str, mode: str, recipe: Choice, results: Results, jobs: list[Job]
    ) -> list[Row]:
        """The row of an arm on a part of the pool, once its share is chosen."""
        texts = (
            ["oracle.target", "oracle.near"]
            if arm == "oracle"
            else [f"b3.{mode}.{share:g}" for share in SHARES]
        )
        trials = [self.trial("share", text, recipe, NEAR) for text in texts]
        jobs += trials
        if any(job.name not in results for job in trials):
            return []
        bits = [results[job.name]["bits_per_byte"] or math.inf for job in trials]
        text = texts[bits.index(min(bits))]
        best = self.on_pool(text, recipe, results, jobs)
        return [Row(arm, "mixture", mode, text, best[1])] if best else []

    def trial(self, stage: str, text: str, choice: Choice, budget: float) -> Job:
        """A run of seed 0, read on valid-A."""
        job = self.job(f"{stage}/{text}", text, "a", choice, budget, 0)
        train = dataclasses.replace(job.config.train, eval_tokens=EVAL_TOKENS)
        config = dataclasses.replace(job.config, train=train)
        labels = (("stage", stage), *job.labels)
        return dataclasses.replace(job, config=config, labels=labels)

    def finals(self, row: Row, rows: Sequence[Row], results: Results) -> Iterator[Job]:
        """Every budget of a row with every seed; more until T1 is bracketed."""
        planned = BUDGETS.get(row.arm, MANY)
        for budget in planned:
            yield from self.seeds(row, budget)
        base = next((r for r in rows if r.arm == "b0" and r.track == row.track), None)
        if base is None or row.arm == "b0":
            return
        target = self.mean(base, 1.0, results)
        low, high = min(planned), max(planned)
        while target and (here := self.mean(row, low, results)) and here < target:
            if (low := low / 2) < LEAST:
                break
            yield from self.seeds(row, low)
        while target and (here := self.mean(row, high, results)) and here > target:
            if (high := high * 2) > MOST:
                break
            yield from self.seeds(row, high)

    def seeds(self, row: Row, budget: float) -> Iterator[Job]:
        """The runs of one budget; their seeds are not those of the trials."""
        for seed in range(1, self.options.seeds + 1):
            where = f"final/{row.track}/{row.name}"
            job = self.job(where, row.text, "b", row.choice, budget, seed)
            labels = (
                ("stage", "final"),
                ("track", row.track),
                ("mode", row.mode),
                *(("arm", row.arm) if k == "arm" else (k, v) for k, v in job.labels),
            )
            yield dataclasses.replace(job, labels=labels, measure=self.measure)

    def mean(self, row: Row, budget: float, results: Results) -> float | None:
        """Bits per byte over the seeds of a budget, once all are there."""
        names = [job.name for job in self.seeds(row, budget)]
        bits = [results.get(name, {}).get("bits_per_byte") for name in names]
        return None if None in bits else sum(b for b in bits if b) / len(bits)

    def job(
        self,
        where: str,
        text: str,
        half: str,
        choice: Choice,
        budget: float,
        seed: int,
    ) -> Job:
        """A run, its name made of all that it depends on."""
        settings = dict(choice.settings)
        words = "_".join(
            f"{value:g}" if isinstance(value, float) else str(value)
            for value in settings.values()
        )
        name = f"{where}/{choice.arm}_d{choice.depth}_{words}_u{budget:g}_s{seed}"
        source = tracks.store(self.options.stores, text, half)
        flops = budget * self.options.unit
        key = (choice, source, flops, seed)
        if key not in self._configs:  # the plan is asked again after every run
            given = (choice.arm, source, settings, choice.depth, flops, seed)
            self._configs[key] = arms.config(*given)
        labels = {
            "arm": choice.arm,
            "recipe": choice.arm,
            "text": text,
            "depth": choice.depth,
            "budget_units": budget,
            "seed": seed,
            **settings,
        }
        return Job(name, self._configs[key], tuple(labels.items()))


def _least(found: Sequence[tuple[float, Choice] | None]) -> Choice | None:
    """The choice of least loss; None unless all are known."""
    known = [pair for pair in found if pair is not None]
    if len(known) < len(found):
        return None
    return min(known, key=lambda pair: pair[0])[1]
