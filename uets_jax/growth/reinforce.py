"""Settings to learn in, and the policy gradient, to be compared with a search.

Source: Williams 1992 (REINFORCE); the baseline is the mean of the other episodes of the
same setting (Kool et al. 2019).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from uets_jax.growth.environment import (
    RULES,
    Act,
    Episode,
    Rules,
    Setting,
    episode,
    greedy,
    sampled,
)
from uets_jax.growth.law import Law
from uets_jax.growth.score import score


class Ranges(NamedTuple):
    """What settings are drawn from; static.

    ladders: sizes in order, of any length.
    tokens:  (least, most) of a run; uniform in the logarithm.
    price:   likewise.
    """

    ladders: tuple[tuple[int, ...], ...]
    tokens: tuple[float, float]
    price: tuple[float, float] = (0.02, 20.0)


class Learnt(NamedTuple):
    """`history`: mean objective of each update's episodes, as they were sampled."""

    weights: Float[Array, " f"]
    history: Float[Array, " updates"]


def settings(key: Key[Array, ""], number: int, ranges: Ranges) -> Setting:
    """`number` runs at random, stacked."""
    one, two, three = jax.random.split(key, 3)
    ladders = jnp.asarray(padded(ranges.ladders), jnp.int32)
    picked = jax.random.randint(one, (number,), 0, len(ranges.ladders))
    within = lambda key, ends: jnp.exp(
        jax.random.uniform(key, (number,), jnp.float32, *map(float, np.log(ends)))
    )
    return Setting(
        ladders[picked], within(two, ranges.tokens), within(three, ranges.price)
    )


def padded(ladders: Sequence[Sequence[int]]) -> list[list[int]]:
    """Ladders of one length: the last size is repeated."""
    most = max(map(len, ladders))
    return [[*one, *[one[-1]] * (most - len(one))] for one in ladders]


def value(found: Episode, setting: Setting) -> Float[Array, ""]:
    """reward / (1 + price): no range of prices outweighs the others."""
    return found.reward / (1.0 + setting.price)


def mean_value(
    law: Law, act: Act, key: Key[Array, ""], number: int, ranges: Ranges, rules: Rules
) -> Float[Array, ""]:
    """Mean of `value` over `number` random settings."""
    draw, noise = jax.random.split(key)
    some = settings(draw, number, ranges)
    run = lambda key, one: value(episode(law, act, key, one, rules), one)
    return jax.vmap(run)(jax.random.split(noise, number), some).mean()


def quality(
    law: Law,
    weights: Float[Array, " f"],
    key: Key[Array, ""],
    number: int,
    ranges: Ranges,
    rules: Rules = RULES,
) -> Float[Array, ""]:
    """`mean_value` of the policy that takes every stage of a score above 0."""
    return mean_value(law, greedy(weights), key, number, ranges, rules)


def reinforce(
    law: Law,
    weights: Float[Array, " f"],
    key: Key[Array, ""],
    ranges: Ranges,
    updates: int = 300,
    number: int = 64,
    episodes: int = 8,
    rate: float = 0.05,
    rules: Rules = RULES,
) -> Learnt:
    """Adam on E[(R - mean of the others') grad ln pi] over random settings.

    Args:
      law: arrays of JAX.
      weights: to begin with.
      key: of settings, noise and actions.
      ranges: of the settings.
      updates: of the weights.
      number: settings per update.
      episodes: per setting, of other noise and other actions; two or more.
      rate: of Adam.
      rules: of all runs.
    """
    tx = optax.adam(rate)

    def update(carry, key):
        weights, state = carry
        loss = lambda w: _surrogate(law, w, key, ranges, number, episodes, rules)
        grads, mean = jax.grad(loss, has_aux=True)(weights)
        moves, state = tx.update(grads, state, weights)
        return (jnp.asarray(optax.apply_updates(weights, moves)), state), mean

    first = (weights, tx.init(weights))
    (weights, _), history = jax.lax.scan(update, first, jax.random.split(key, updates))
    return Learnt(weights, history)


def _surrogate(
    law: Law,
    weights: Float[Array, " f"],
    key: Key[Array, ""],
    ranges: Ranges,
    number: int,
    episodes: int,
    rules: Rules,
) -> tuple[Array, Array]:
    """A function whose gradient is minus the policy gradient, and the mean value."""
    draw, noise = jax.random.split(key)
    some = settings(draw, number, ranges)
    act = sampled(jax.lax.stop_gradient(weights))

    def run(key, one):
        found = episode(law, act, key, one, rules)
        return value(found, one), _log_likelihood(weights, found)

    keys = jax.random.split(noise, (number, episodes))
    values, logs = jax.vmap(jax.vmap(run, (0, None)))(keys, some)
    others = (values.sum(1, keepdims=True) - values) / (episodes - 1)
    return -((values - others) * logs).mean(), values.mean()


def _log_likelihood(weights: Float[Array, " f"], found: Episode) -> Array:
    """ln pi of the actions of an episode, where it was asked."""
    scores = score(weights, jax.lax.stop_gradient(found.features))
    logs = jax.nn.log_sigmoid(jnp.where(found.taken, scores, -scores))
    return jnp.where(found.asked, logs, 0.0).sum()
