"""Which runs a pilot makes: arms, three budgets each, paired seeds.

A pilot is the full run in small. The largest runs get `share` of its FLOPs, the others
a half and a quarter of that; each is fully decayed, with warm-up and the times of
growth at the same shares of its steps. What is counted once before the first step
(statistics of a selection, a start from counts) takes as many FLOPs in a run of 1 % as
in the whole one: the cost that arms are compared by holds `share` of it, as the full
run's would. What the pilot itself has cost holds all of it.
"""

import dataclasses
import functools
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from uets_jax.config import ExperimentConfig
from uets_jax.errors import UserError
from uets_jax.pilot.methods import METHODS, combined, plain
from uets_jax.train.budget import spending, steps_for
from uets_jax.train.session import check_growth, open_session

PARTS = (0.25, 0.5, 1.0)  # of the largest run of an arm
SHARE, SEEDS = 0.01, 3
LEAST = 8  # steps of the smallest run
PLAIN, TOGETHER = "plain", "together"

# what a short run does without
QUIET: dict[str, Any] = {
    "eval_every": 0,
    "checkpoint_every": 0,
    "keep": 1,
    "samples": 0,
    "log_every": 1 << 20,
    "target": 0.0,
    "tune": "",
    "baseline": "",
    "trackers": "",
}


class Shot(NamedTuple):
    """A run of an arm.

    part:   of the arm's largest budget.
    waived: FLOPs that it takes before its first step and is not compared by.
    """

    arm: str
    part: float
    seed: int
    config: ExperimentConfig
    waived: float

    @property
    def name(self) -> str:
        """Unique in its plan."""
        return f"{self.arm}_{self.part:g}_s{self.seed}"


class Arm(NamedTuple):
    """A way to train.

    config: of the full run, but for its steps.
    start:  FLOPs before its first step.
    steps:  of each of `PARTS`.
    """

    name: str
    config: ExperimentConfig
    start: int
    steps: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """All runs of a pilot.

    flops:   of training, of the full run.
    share:   of them that the largest runs get.
    arms:    the plain one first.
    skipped: methods that can't be had here, and why.
    corpus:  fingerprint of the text.
    """

    flops: float
    share: float
    seeds: tuple[int, ...]
    arms: tuple[Arm, ...]
    skipped: Mapping[str, str]
    corpus: str

    @functools.cached_property
    def shots(self) -> tuple[Shot, ...]:
        """Arm by arm; arms have the same seeds, and with them the same data order."""
        return tuple(
            Shot(arm.name, part, seed, short(arm, i, seed, self.share), waived)
            for arm in self.arms
            for waived in [(1 - self.share) * arm.start]
            for i, part in enumerate(PARTS)
            for seed in self.seeds
        )

    def expected(self) -> float:
        """FLOPs of training of all runs, what is counted before them included."""
        runs = sum(PARTS) * self.share * self.flops
        return sum(
            len(self.seeds) * (runs + len(PARTS) * (1 - self.share) * arm.start)
            for arm in self.arms
        )


def make_plan(
    given: ExperimentConfig, flops: float, share: float = SHARE, seeds: int = SEEDS
) -> Plan:
    """The runs that say what each method does to a run of so many FLOPs.

    Args:
      given: the full run, its methods included.
      flops: of training, of that run.
      share: of them that the largest runs of each arm get.
      seeds: of each arm and budget; they count up from the config's.

    Raises:
      UserError: for numbers that no pilot can have, a run that is too short, or what
        would end a training of the config. A method that the config doesn't have itself
        is skipped where it can't be had.
    """
    if not 0 < share <= 1:
        raise UserError(f"--share: must be above 0 and at most 1, got {share}")
    if seeds < 2:
        raise UserError(f"--seeds: {seeds}: an interval needs 2 or more, better 3")
    session = open_session(plain(given))
    vocab = session.config.model.vocab
    model = dataclasses.replace(given.model, vocab=vocab)
    given = dataclasses.replace(given, model=model)
    base = plain(given)
    arms, skipped = [_arm(PLAIN, base, flops, share)], {}
    for method in METHODS:
        try:
            config = method.apply(base, given)
            arms.append(_arm(method.name, config, flops, share))
        except UserError as error:
            if method.asked(given):
                raise
            skipped[method.name] = str(error)
    first = given.train.seed
    return Plan(
        flops=flops,
        share=share,
        seeds=tuple(range(first, first + seeds)),
        arms=tuple(arms),
        skipped=skipped,
        corpus=session.store.fingerprint,
    )


def together(plan: Plan, given: ExperimentConfig, names: Collection[str]) -> Plan:
    """With another arm that has all methods of these names, if it can be had."""
    model = dataclasses.replace(given.model, vocab=plan.arms[0].config.model.vocab)
    config = combined(dataclasses.replace(given, model=model), names)
    try:
        arm = _arm(TOGETHER, config, plan.flops, plan.share)
    except UserError as error:
        skipped = {**plan.skipped, TOGETHER: str(error)}
        return dataclasses.replace(plan, skipped=skipped)
    return dataclasses.replace(plan, arms=(*plan.arms, arm))


def _arm(name: str, config: ExperimentConfig, flops: float, share: float) -> Arm:
    """Steps by what is left for them of the FLOPs of each part.

    Raises:
      UserError: if the smallest run has too few.
    """
    quiet = dataclasses.replace(config.train, **QUIET)
    config = dataclasses.replace(config, train=quiet)
    spent = spending(config)
    left = [part * flops - spent.start for part in PARTS]
    if left[0] <= 0:
        raise UserError(
            f"{name}: what is counted before the first step takes {spent.start:.3g} of "
            f"the run's {flops:.3g} FLOPs; plan a longer run (--flops)"
        )
    _check_length(name, share * left[0] / (spent.steps / quiet.steps), share)
    most = steps_for(config, share * left[-1] + spent.start)
    steps = tuple(round(most * one / left[-1]) for one in left)
    arm = Arm(name, config, spent.start, steps)
    check_growth(short(arm, 0, 0, share), None)
    return arm


def _check_length(name: str, steps: float, share: float) -> None:
    """Raises `UserError` for too few steps of the smallest run."""
    if steps >= LEAST:
        return
    more = 1.05 * LEAST / steps
    larger = f"give --share {share * more:.2g} or " if share * more <= 1 else ""
    raise UserError(
        f"{name}: {share * PARTS[0]:.2%} of the run is {steps:.1f} steps, which takes "
        f"{LEAST}: {larger}plan one that is {more:.2g} times as long (--train.steps, "
        "--flops or --minutes)"
    )


def short(arm: Arm, place: int, seed: int, share: float) -> ExperimentConfig:
    """The run of `PARTS[place]`: what is told in steps shrinks with their number."""
    config, scale = arm.config, share * PARTS[place]
    fewer = lambda steps: round(steps * scale)
    growth = dataclasses.replace(
        config.growth, rewarm=fewer(config.growth.rewarm), look_every=0
    )
    return dataclasses.replace(
        config,
        name=f"{arm.name} {PARTS[place]:g}",
        optim=dataclasses.replace(config.optim, warmup=fewer(config.optim.warmup)),
        growth=growth,
        train=dataclasses.replace(config.train, steps=arm.steps[place], seed=seed),
    )
