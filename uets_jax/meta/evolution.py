"""Antithetic evolution strategies over a few bounded knobs, in some 40 noisy runs.

The plan is a pure function of the losses so far, so that a queue of runs can ask again
after every run, in any process, and be cut off anywhere. Three phases: *search*;
*choose* between start, mean and incumbent on fresh seeds; *confirm* on other fresh
seeds. Only the last gives the losses that are reported: the least of many noisy losses
is too low, and so is that of a choice on the very runs that decided it.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from uets_jax.errors import UserError
from uets_jax.meta.knobs import Knob
from uets_jax.meta.strategy import EvolutionConfig, generation, mean_after

Run = Callable[[Mapping[str, float], int], float]


@dataclasses.dataclass(frozen=True)
class Point:
    """One run: its settings, its seed, and what it is for."""

    values: tuple[tuple[str, float], ...]
    seed: int
    phase: str

    @property
    def settings(self) -> dict[str, float]:
        """The values by name."""
        return dict(self.values)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the runs found.

    chosen:     `start`, `mean` or `incumbent`, by the phase choose.
    settings:   of the three, by name.
    loss, start_loss: means of the chosen one and of the start in the phase confirm;
      equal if the start was chosen, infinite if a run diverged.
    error:      standard error of loss - start_loss, from paired seeds; NaN for one.
    runs:       that were made.
    """

    chosen: str
    settings: Mapping[str, Mapping[str, float]]
    loss: float
    start_loss: float
    error: float
    runs: int


def next_points(
    knobs: Sequence[Knob], losses: Sequence[float], config: EvolutionConfig
) -> list[Point]:
    """The runs that may be made now, all independent of each other; [] at the end.

    Args:
      knobs: what is searched.
      losses: of the runs so far, in the order in which the points were planned. NaN
        and infinite ones count as worse than all others.
      config: the budget.

    A generation is planned from whole generations before it: with some of its losses
    at hand, the rest of its points are returned.

    Raises:
      UserError: more losses than were planned, or no knob.
    """
    if not knobs:
        raise UserError("evolution: there is no knob to search")
    points, done = [], 0
    while done <= len(losses):
        points = _round(knobs, losses[:done], config)
        if not points:
            if len(losses) > done:
                raise UserError(f"evolution: {len(losses)} losses of {done} runs")
            return []
        done += len(points)
    return points[len(losses) - done :]


def outcome(
    knobs: Sequence[Knob], losses: Sequence[float], config: EvolutionConfig
) -> Outcome:
    """The result of a search whose runs are all made.

    Raises:
      UserError: runs are still to be made.
    """
    if next_points(knobs, losses, config):
        raise UserError(f"evolution: only {len(losses)} runs are made; go on first")
    last = _or_inf(losses[config.searched + 3 * config.check :])
    start, loss = (last.reshape(config.check, -1)[:, column] for column in (0, -1))
    error = math.nan
    if config.check > 1 and np.isfinite(last).all():
        error = float((loss - start).std(ddof=1)) / math.sqrt(config.check)
    return Outcome(
        _choice(losses, config),
        {name: dict(_values(knobs, at)) for name, at in _three(knobs, losses, config)},
        float(loss.mean()),
        float(start.mean()),
        error,
        len(losses),
    )


def evolve(
    knobs: Sequence[Knob],
    run: Run,
    config: EvolutionConfig,
    losses: Sequence[float] = (),
) -> tuple[Outcome, list[float]]:
    """Makes all runs that are still to be made, one by one; the outcome and the losses.

    `run(settings, seed)` gives the loss of a run; a lower one is better. Two runs of
    one seed must differ by their settings alone (the same data, the same first
    parameters): the search compares them.
    """
    done = list(losses)
    while points := next_points(knobs, done, config):
        done += [float(run(point.settings, point.seed)) for point in points]
    return outcome(knobs, done, config), done


def _round(
    knobs: Sequence[Knob], losses: Sequence[float], config: EvolutionConfig
) -> list[Point]:
    """What follows whole rounds: a generation, a phase, or nothing."""
    made, check = len(losses), config.check
    if made < config.searched:
        number = made // (2 * config.pairs)
        places = generation(mean_after(_start(knobs), losses, config), number, config)
        return [
            Point(_values(knobs, x), config.seed + number, "search") for x in places
        ]
    fresh = config.seed + config.generations
    three = _three(knobs, losses, config)
    if made == config.searched:
        seeds, phase = range(fresh, fresh + check), "choose"
    elif made == config.searched + 3 * check:
        seeds, phase = range(fresh + check, fresh + 2 * check), "confirm"
        kept = ("start", _choice(losses, config))
        three = [(name, x) for name, x in three if name in kept]
    else:
        return []
    return [Point(_values(knobs, x), seed, phase) for seed in seeds for _, x in three]


def _three(
    knobs: Sequence[Knob], losses: Sequence[float], config: EvolutionConfig
) -> list[tuple[str, np.ndarray]]:
    """Start, mean, and the best place of the last generation (one seed throughout)."""
    start, last = _start(knobs), config.generations - 1
    first = last * 2 * config.pairs
    best = int(np.argmin(_or_inf(losses[first : config.searched])))
    before = mean_after(start, losses[:first], config)
    mean = mean_after(start, losses, config)
    incumbent = generation(before, last, config)[best]
    return [("start", start), ("mean", mean), ("incumbent", incumbent)]


def _choice(losses: Sequence[float], config: EvolutionConfig) -> str:
    """The one of the three with the least mean loss on the seeds of phase choose."""
    own = losses[config.searched : config.searched + 3 * config.check]
    means = _or_inf(own).reshape(config.check, 3).mean(0)
    return ("start", "mean", "incumbent")[int(np.argmin(means))]


def _start(knobs: Sequence[Knob]) -> np.ndarray:
    return np.array([knob.to_unit(knob.start) for knob in knobs])


def _or_inf(losses: Sequence[float]) -> np.ndarray:
    """Infinity for what is not finite: worse than all others."""
    values = np.asarray(losses, float)
    return np.where(np.isfinite(values), values, np.inf)


def _values(knobs: Sequence[Knob], place: np.ndarray) -> tuple[tuple[str, float], ...]:
    return tuple(
        (knob.name, knob.from_unit(float(x)))
        for knob, x in zip(knobs, place, strict=True)
    )
