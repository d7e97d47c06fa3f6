"""Whether scoring pays: it is switched off while its gain is below its cost.

Gains are factors: g training steps at random teach what one on chosen rows does. Costs
are shares of a training step: r c, with r candidates per trained row and c the cost of
scoring one in units of training on one. Both come from counts and scores, never from
clocks, so that a run that is resumed decides the same.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from uets_jax.component import Component
from uets_jax.types import Params


class SwitchState(NamedTuple):
    """on: whether scoring pays. mean: running gain, over `number` measurements.

    idle: steps since scoring was switched off or last probed.
    """

    on: Bool[Array, ""]
    mean: Float[Array, ""]
    number: Int[Array, ""]
    idle: Int[Array, ""]


def variance_gain(scores: Float[Array, " n"]) -> Float[Array, ""]:
    """tau = sqrt(mean s^2) / mean s >= 1, for draws in proportion to scores s >= 0.

    Where s is the norm of a row's gradient, drawing and weighing by it divides the
    second moment of the estimated gradient by tau^2, the most that any draw can do; to
    count tau itself, as the source does, is the cautious side. 1 for equal scores.

    Source: Katharopoulos and Fleuret 2018, arXiv:1803.00942, whose 1 / tau =
    sqrt(1 - |p - u|^2 / |p|^2), p = s / sum s and u uniform, is the same.
    """
    s = jnp.maximum(scores.astype(jnp.float32), 0.0)
    mean = s.mean()
    tau = jnp.sqrt((s * s).mean()) / jnp.where(mean > 0, mean, 1.0)
    return jnp.where(mean > 0, jnp.maximum(tau, 1.0), 1.0)


def choice_gain(
    chosen: Float[Array, " b"], offered: Float[Array, " n"]
) -> Float[Array, ""]:
    """Mean score of the rows that were chosen over that of all that were offered.

    The gain in the `target` mode, where no weights undo the bias, if scores are
    proportional to what a row teaches (learnability, learning progress) and not
    negative on average; 1 where the offered ones aren't above 0 on average.
    """
    usual = offered.mean()
    return jnp.where(usual > 0, chosen.mean() / jnp.where(usual > 0, usual, 1.0), 1.0)


def pays(gain: float | Array, cost: float | Array) -> Array:
    """gain > 1 + cost: a step that scores teaches more than as much plain training."""
    return jnp.asarray(gain > 1 + cost)


def asks(state: SwitchState, every: int | Array = 256) -> Bool[Array, ""]:
    """Whether this step scores: scoring is on, or it is time to probe."""
    return state.on | (state.idle >= every)


def switch(
    probe: int = 8, every: int = 256, band: float = 1.25, rate: float = 0.05
) -> Component:
    """`apply(state, gain, cost) -> (whether the next step scores, state)`.

    Starts on. Goes off when the running gain no longer `pays` the cost; after `every`
    steps a probe of `probe` steps scores again, and goes on when its mean gain pays
    `band` times the cost. No decision rests on less than `probe` measurements. In steps
    that `asks` did not let score, `gain` is not read.

    Args:
      probe: measurements that a decision needs, at least.
      every: steps between probes while off, so that a probe costs probe / every.
      band: hysteresis, at least 1.
      rate: share of a new measurement in the running gain, once 1 / rate were made.
    """

    def apply(
        state: SwitchState, gain: Float[Array, ""], cost: Float[Array, ""]
    ) -> tuple[Bool[Array, ""], SwitchState]:
        scored = asks(state, every)
        gain = jnp.where(jnp.isfinite(gain), gain, 1.0)
        number = state.number + scored
        part = jnp.maximum(1 / jnp.maximum(number, 1), rate)
        mean = jnp.where(scored, state.mean + part * (gain - state.mean), state.mean)
        ready = scored & (number >= probe)
        needed = jnp.where(state.on, cost, band * cost)
        on = jnp.where(ready, pays(mean, needed), state.on)
        over = ready & ~on  # switched off, or probed in vain
        idle = jnp.where(over | on, 0, state.idle + ~scored)
        after = SwitchState(on, mean, jnp.where(over, 0, number), idle)
        return asks(after, every), after

    def init(params: Params) -> SwitchState:
        none = jnp.zeros((), jnp.int32)
        return SwitchState(jnp.ones((), bool), jnp.ones((), jnp.float32), none, none)

    return Component(init=init, apply=apply)
