"""One generation of an antithetic evolution strategy in the unit cube.

Source: Salimans et al. 2017, arXiv:1703.03864 (antithetic pairs), Wierstra et al. 2014
(rank utilities), Choromanski et al. 2018, arXiv:1804.02395 (orthogonal directions).
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from uets_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class EvolutionConfig:
    """How the runs are spent. Knobs are mapped to [0, 1] (unit cube).

    runs:    budget; what is left after `5 check` runs goes to whole generations.
    pairs:   antithetic pairs of a generation; best as many as there are knobs.
    spread:  of the first generation's points around the mean, per knob.
    shrink:  factor of the spread from one generation to the next.
    rate:    of the mean, in natural steps.
    shaping: utilities from the `rank` of a loss, or `plain`: from its distance to the
             generation's mean in standard deviations.
    check:   fresh seeds of the phases choose (3 points) and confirm (2 points).
    seed:    of the directions; run seeds count up from it.

    Raises:
      UserError: a number is out of range, or not one generation fits into `runs`.
    """

    runs: int = 40
    pairs: int = 5
    spread: float = 0.25
    shrink: float = 0.75
    rate: float = 1.0
    shaping: str = "rank"
    check: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("pairs", "check", "spread", "shrink", "rate"):
            if not getattr(self, name) > 0:
                raise UserError(f"evolution.{name}: must be above 0")
        if self.shaping not in ("rank", "plain"):
            raise UserError(
                f"evolution.shaping: 'rank' or 'plain', not {self.shaping!r}"
            )
        if self.generations < 1:
            raise UserError(
                f"evolution.runs: {self.runs} is less than one generation and the "
                f"checks, {2 * self.pairs + 5 * self.check}"
            )

    @property
    def generations(self) -> int:
        """Whole generations that the budget pays for."""
        return (self.runs - 5 * self.check) // (2 * self.pairs)

    @property
    def searched(self) -> int:
        """Runs of the phase search."""
        return self.generations * 2 * self.pairs


def generation(mean: np.ndarray, number: int, config: EvolutionConfig) -> np.ndarray:
    """Places [2 pairs, knobs] in the unit cube: +, -, +, ..., orthogonal directions."""
    rng, knobs = np.random.default_rng((config.seed, number)), len(mean)
    blocks = -(-config.pairs // knobs)
    bases = [np.linalg.qr(rng.normal(size=(knobs, knobs)))[0] for _ in range(blocks)]
    directions = np.concatenate(bases)[: config.pairs] * math.sqrt(knobs)
    both = np.stack([directions, -directions], 1).reshape(-1, knobs)
    return np.clip(mean + config.spread * config.shrink**number * both, 0.0, 1.0)


def mean_after(
    start: np.ndarray, losses: Sequence[float], config: EvolutionConfig
) -> np.ndarray:
    """The mean [knobs] after all whole generations whose losses are known."""
    mean, size = start, 2 * config.pairs
    for number in range(min(len(losses), config.searched) // size):
        places = generation(mean, number, config)
        own = np.asarray(losses[number * size : (number + 1) * size], float)
        step = utilities(own, config.shaping) @ (places - mean)
        mean = np.clip(mean + config.rate * step, 0.0, 1.0)
    return mean


def utilities(losses: np.ndarray, shaping: str = "rank") -> np.ndarray:
    """What each of n losses counts in the step of the mean; 0 in sum.

    `rank`: max(0, log(n / 2 + 1) - log rank), over its sum, less 1 / n; equal losses
    share. `plain`: (mean - loss) / deviation / n. Losses that are not finite are the
    worst; without any finite one all are 0.
    """
    finite, n = np.isfinite(losses), len(losses)
    if not finite.any():
        return np.zeros(n)
    known = losses[finite]
    worst = known.max() + (known.std() if shaping == "plain" else 1.0)
    filled = np.where(finite, losses, worst)
    if shaping == "plain":
        deviation = filled.std()
        apart = filled.mean() - filled
        return apart / deviation / n if deviation > 0 else np.zeros(n)
    raw = np.maximum(0.0, math.log(n / 2 + 1) - np.log(np.arange(1, n + 1)))
    raw = raw / raw.sum() - 1 / n
    ranked = np.empty(n)
    ranked[np.argsort(filled, kind="stable")] = raw
    _, same = np.unique(filled, return_inverse=True)
    return (np.bincount(same, ranked) / np.bincount(same))[same]
