"""How good a theta is: whole runs on held-out families, the same for every theta."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from uets_jax.meta.augment import PLAIN
from uets_jax.meta.episode import Make, run
from uets_jax.meta.family import Family

WORST = 1.0  # what a run counts as that diverged: e times the loss of its start


class Comparison(NamedTuple):
    """mean: of the differences, below 0 where the first theta is better. error: its
    standard error over families and seeds; between-family variation isn't in it.
    """

    mean: float
    error: float

    @property
    def better(self) -> bool:
        """By two standard errors."""
        return self.mean < -2 * self.error


# (theta, seeds, factor of the learning rate) -> a score for each seed
Scores = Callable[[Any, Int[Array, " n"], Float[Array, ""]], Float[Array, " n"]]


def scorer(make: Make, family: Family) -> Scores:
    """(theta, seeds, factor) -> log(held-out loss at the end / at the start), <= 1.

    Runs of the nominal horizon without augmentation, at the family's learning rate
    times the factor.
    """
    parts = run(make, family, PLAIN)

    def one(theta: Any, seed: Int[Array, ""], factor: Float[Array, ""]) -> Array:
        episode = parts.begin(jax.random.fold_in(jax.random.key(0), seed))
        steps = jnp.asarray(family.horizon, jnp.int32)
        drawn = episode.drawn._replace(horizon=steps, rate=jnp.asarray(factor))
        episode = episode._replace(drawn=drawn)
        first = parts.start(theta, episode)
        step = lambda inner, t: (parts.advance(theta, inner, episode, t)[0], None)
        last, _ = jax.lax.scan(step, first, jnp.arange(family.horizon))
        ends = [family.held(inner.params, episode.instance) for inner in (first, last)]
        score = jnp.log(ends[1] / ends[0])
        return jnp.where(jnp.isfinite(score), jnp.minimum(score, WORST), WORST)

    return jax.vmap(one, (None, 0, None))


def compare(
    scores: Float[np.ndarray, "families seeds"],
    against: Float[np.ndarray, "families seeds"],
) -> Comparison:
    """Paired over seeds; every family counts alike."""
    apart = np.asarray(scores, np.float64) - np.asarray(against, np.float64)
    families, seeds = apart.shape
    error = math.sqrt((apart.var(1, ddof=1) / seeds).sum()) / families
    return Comparison(float(apart.mean()), error)
