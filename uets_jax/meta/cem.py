"""The cross-entropy method: a search without gradients, for noisy objectives.

Source: Rubinstein 1999; de Boer et al. 2005 (smoothing). A diagonal Gaussian is fitted
again and again to the best of what was drawn from it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

Objective = Callable[[Float[Array, " n"], Key[Array, ""]], Float[Array, ""]]


class Result(NamedTuple):
    """mean, std: of the last Gaussian. best: of the last mean and the best candidate of
    each generation, the one with the highest objective under one fresh key.
    history: mean objective of the elites of each generation.
    """

    mean: Float[Array, " n"]
    std: Float[Array, " n"]
    best: Float[Array, " n"]
    history: Float[Array, " generations"]


def cem(
    objective: Objective,
    mean: Float[Array, " n"],
    std: Float[Array, " n"],
    population: int,
    elites: int,
    generations: int,
    key: Key[Array, ""],
    smoothing: float = 0.7,
) -> Result:
    """Maximises `objective(candidate, key)`; pure, can be jitted.

    All candidates of a generation get the same key: common random numbers take the
    noise that they share out of their ranking.

    Args:
      objective: to be vmapped over candidates.
      mean: of the first Gaussian.
      std: likewise, per entry.
      population: candidates of a generation.
      elites: of them, the best, to which mean and standard deviation are fitted.
      generations: that are drawn.
      key: of candidates and objective.
      smoothing: share of the new mean and deviation in the next ones.
    """
    every = jax.vmap(objective, (0, None))

    def generation(carry, key):
        mean, std = carry
        draw, noise = jax.random.split(key)
        away = jax.random.normal(draw, (population, mean.size), mean.dtype)
        candidates = mean[None] + std[None] * away
        scores = every(candidates, noise)
        scores = jnp.where(jnp.isfinite(scores), scores, -jnp.inf)
        top, places = jax.lax.top_k(scores, elites)
        chosen = candidates[places]
        mix = lambda new, old: smoothing * new + (1 - smoothing) * old
        after = mix(chosen.mean(0), mean), mix(chosen.std(0), std)
        return after, (chosen[0], top.mean())

    search, last = jax.random.split(key)
    keys = jax.random.split(search, generations)
    scanned = jax.lax.scan(generation, (mean, std), keys)
    (mean, std), (leaders, history) = scanned
    finalists = jnp.concatenate([mean[None], leaders])
    scores = every(finalists, last)
    best = finalists[jnp.argmax(jnp.where(jnp.isfinite(scores), scores, -jnp.inf))]
    return Result(mean, std, best, history)
