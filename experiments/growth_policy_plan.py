"""What the learned growth policy wants run: to learn from, then for a verdict.

    rollout   some 40 short runs on clean text: each of three sizes throughout, and
              growth over all three, or from the first to the last, at random times
    verify    other seeds, a run twice as long, the other track: the policy at several
              prices, the best schedule of the rollouts, trigger, random times, static

All are b2 at one learning rate, and end in the same decay. Pure: from the results so
far to the jobs that are wanted.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import growth_policy_ladder, tracks
from experiments.growth_policy_ladder import LADDERS, Ladder
from experiments.growth_policy_score import best_schedule
from experiments.runner import Job, Measure, Results
from uets_jax.config import ExperimentConfig, GrowthConfig

STEPS = 240  # of 1,024 tokens
PRICES = (0.05, 0.2, 1.0)  # nats per run at the last size
DEAR = 10.0
EVAL_TOKENS = 100_000
EARLIEST, LATEST = 0.1, 0.55  # of the random times; the rate decays from 0.6 on
RANDOM = 14  # schedules of each ladder
SHARES = 0.3, 0.55  # for trigger at the latest; for learned only the order
FIRST_SEED = 101  # of the verdict


class Case(NamedTuple):
    """Where the verdict is read: a track and a length of the runs."""

    track: str
    steps: int


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line says.

    stores:  folder of the tracks.
    field:   that grows.
    seeds:   of each arm of the verdict.
    steps:   of a run.
    random:  schedules of each ladder.
    static_seeds: of each static size, among the rollouts.
    tokens:  of the validation text.
    weights: of the policy, by which its runs are named.
    """

    stores: Path
    field: str = "width"
    seeds: int = 3
    steps: int = STEPS
    random: int = RANDOM
    static_seeds: int = 2
    tokens: int = EVAL_TOKENS
    weights: tuple[float, ...] = ()

    @property
    def ladder(self) -> Ladder:
        """Of the field."""
        return LADDERS[self.field]

    @property
    def policy(self) -> str:
        """Another policy has other runs."""
        return hashlib.sha256(repr(self.weights).encode()).hexdigest()[:8]


def cases(options: Options) -> tuple[Case, ...]:
    """Other seeds, a longer run, another text."""
    n = options.steps
    return Case("clean", n), Case("clean", 2 * n), Case("mixture", n)


class PolicyPlan:
    """The plan of one phase.

    options: of the command line.
    verify:  the verdict is wanted, too.
    measure: from the name of a job to what is read off its run.
    """

    def __init__(
        self,
        options: Options,
        verify: bool,
        measure: Callable[[str], Measure] | None = None,
    ) -> None:
        self.options, self.verify, self.measure = options, verify, measure
        self._rollouts = self.rollouts()
        self._verdict: list[Job] = []

    def __call__(self, results: Results) -> list[Job]:
        """The rollouts; once all are there, the verdict."""
        known = [results.get(job.name) for job in self._rollouts]
        if not self.verify or None in known:
            return self._rollouts
        self._verdict = self._verdict or self.verdict([r for r in known if r])
        return [*self._rollouts, *self._verdict]

    def rollouts(self) -> list[Job]:
        """Static sizes at two lengths, and growth at random times."""
        n, rng = self.options.steps, np.random.default_rng(0)
        case = Case("clean", n)
        found = [
            self.job("rollout", f"static {size}", Case("clean", steps), seed, size)
            for size in self.options.ladder.sizes
            for steps in (n // 2, n)
            for seed in range(1, self.options.static_seeds + 1)
        ]
        for number in range(2 * self.options.random):
            plan = random_plan(rng, self.options.ladder, two=number % 2 == 0)
            growth = GrowthConfig("fixed", plan)
            seed = 1 + (number // 2) % 2
            found.append(self.job("rollout", "fixed", case, seed, growth=growth))
        return found

    def verdict(self, records: Sequence[dict[str, Any]]) -> list[Job]:
        """Every arm on every case with every seed."""
        found = []
        for case in cases(self.options):
            for seed in range(FIRST_SEED, FIRST_SEED + self.options.seeds):
                for arm, growth, price, size in verdict_arms(
                    self.options, records, case, seed
                ):
                    job = self.job("verify", arm, case, seed, size, growth, price)
                    found.append(job)
        return [*{job.name: job for job in found}.values()]

    def job(
        self,
        stage: str,
        arm: str,
        case: Case,
        seed: int,
        size: int = 0,
        growth: GrowthConfig | None = None,
        price: float | None = None,
    ) -> Job:
        """One run; `size` 0: it begins at the first."""
        size = size or self.options.ladder.sizes[0]
        plan = growth.plan if growth else ""
        labels = {
            "stage": stage,
            "arm": arm,
            "track": case.track,
            "horizon": case.steps,
            "price": price,
            "seed": seed,
            "field": self.options.field,
            "size": size,
            "plan": plan,
        }
        name = job_name(self.options, stage, arm, case, seed, plan, price)
        half = "a" if stage == "rollout" else "b"
        config = configure(self.options, half, case, seed, size, growth)
        measure = self.measure and self.measure(name)
        return Job(name, config, tuple(labels.items()), measure)


def verdict_arms(
    options: Options, records: Sequence[dict[str, Any]], case: Case, seed: int
) -> list[tuple[str, GrowthConfig | None, float | None, int]]:
    """(arm, growth, price, size) of the runs of a case and a seed."""
    ladder, first = options.ladder, options.ladder.sizes[0]
    order = ladder.plan(*SHARES)
    learned = lambda price: GrowthConfig("learned", order, cost=price)
    prices = (*PRICES, DEAR) if case == cases(options)[0] else PRICES
    found: list[Any] = [("learned", learned(price), price, first) for price in prices]
    found += [(f"static {size}", None, None, size) for size in ladder.sizes]
    found.append(("trigger", GrowthConfig("trigger", order), None, first))
    plan = random_plan(np.random.default_rng(seed), ladder, two=seed % 2 == 0)
    found.append(("random", GrowthConfig("fixed", plan), None, first))
    for price in PRICES:
        plan = best_schedule(records, price, options.steps)
        if plan:
            found.append(("fixed", GrowthConfig("fixed", plan), None, first))
    return found


def random_plan(rng: np.random.Generator, ladder: Ladder, two: bool) -> str:
    """Over all sizes or to the last one, at random shares of the steps."""
    first, second = sorted(rng.uniform(EARLIEST, LATEST, 2).round(2))
    return ladder.plan(first, second) if two else ladder.leap(first)


def job_name(
    options: Options,
    stage: str,
    arm: str,
    case: Case,
    seed: int,
    plan: str,
    price: float | None,
) -> str:
    """A path; unique among the jobs."""
    words = [options.field, arm.replace(" ", "-")]
    if arm == "learned":
        words += [options.policy, f"p{price:g}"]
    elif plan:
        words.append(
            plan.replace(f"{options.field}=", "").replace(":", "_").replace(",", "-")
        )
    return f"{stage}/{case.track}_n{case.steps}_{'_'.join(words)}_s{seed}"


def configure(
    options: Options,
    half: str,
    case: Case,
    seed: int,
    size: int,
    growth: GrowthConfig | None,
) -> ExperimentConfig:
    """The run of an arm."""
    source = tracks.store(options.stores, case.track, half)
    config = growth_policy_ladder.configure(
        options.ladder, size, source, case.steps, seed
    )
    train = dataclasses.replace(config.train, eval_tokens=options.tokens)
    name = f"{options.field} {size}" + (f", {growth.method} growth" if growth else "")
    growth = growth or GrowthConfig()
    return dataclasses.replace(config, name=name, growth=growth, train=train)
