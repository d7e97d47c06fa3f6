"""How good a theta is: whole runs on held-out families, the same for every theta."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from uets_jax.meta.augment import PLAIN
from uets_jax.meta.episode import MOST, Make, run
from uets_jax.meta.family import Family

WORST = 1.0  # what a run counts as that diverged: e times the loss of its start


class Comparison(NamedTuple):
    """mean: of the differences, below 0 where the first theta is better. error: its
    standard error over families and seeds; between-family variation isn't in it.
    families: the mean of each.
    """

    mean: float
    error: float
    families: tuple[float, ...] = ()

    @property
    def better(self) -> bool:
        """By two standard errors."""
        return self.mean < -2 * self.error


# (theta, seeds, factor of the learning rate) -> (scores, training losses)
Scores = Callable[
    [Any, Int[Array, " n"], Float[Array, ""]],
    tuple[Float[Array, " n"], Float[Array, "n t"]],
]


def scorer(make: Make, family: Family) -> Scores:
    """Whole runs, one for each seed.

    A score is log(held-out loss at the end / at the start), at most 1; beside it the
    logs of training losses over the first one. Runs have the nominal horizon, no
    augmentation, and the family's learning rate times the factor.
    """
    parts = run(make, family, PLAIN)

    def one(theta: Any, seed: Int[Array, ""], factor: Float[Array, ""]) -> Any:
        episode = parts.begin(jax.random.fold_in(jax.random.key(0), seed))
        steps = jnp.asarray(family.horizon, jnp.int32)
        drawn = episode.drawn._replace(horizon=steps, rate=jnp.asarray(factor))
        episode = episode._replace(drawn=drawn)
        first = parts.start(theta, episode)
        step = lambda inner, t: parts.advance(theta, inner, episode, t)
        last, falls = jax.lax.scan(step, first, jnp.arange(family.horizon))
        ends = [family.held(inner.params, episode.instance) for inner in (first, last)]
        score = jnp.log(ends[1] / ends[0])
        return jnp.where(jnp.isfinite(score), jnp.minimum(score, WORST), WORST), falls

    return jax.vmap(one, (None, 0, None))


def compare(
    scores: Float[np.ndarray, "families seeds"],
    against: Float[np.ndarray, "families seeds"],
    scales: Float[np.ndarray, " families"],
) -> Comparison:
    """Paired over seeds; every family counts alike.

    Args:
      scores: of a theta.
      against: of the one that it is compared with, same seeds.
      scales: of `episode.doubling`: a difference over it is about minus the log of a
        speed-up. It counts for at most 3 either way, so that no single run decides.
    """
    apart = np.asarray(scores, np.float64) - np.asarray(against, np.float64)
    apart = np.clip(apart / np.asarray(scales, np.float64)[:, None], -MOST, MOST)
    families, seeds = apart.shape
    error = math.sqrt((apart.var(1, ddof=1) / seeds).sum()) / families
    each = tuple(float(x) for x in apart.mean(1))
    return Comparison(float(apart.mean()), error, each)
