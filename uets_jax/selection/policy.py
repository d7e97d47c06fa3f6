"""How to query and how much: a bandit over settings; when at all: see `switch`.

The bandit holds one row of a table of settings (ratio, temperature, band, stage) for a
period, is rewarded with what was learned in it, and comes to prefer rows that teach.
All functions are pure, may be compiled, and are deterministic given their keys.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from uets_jax.component import Component

RECENT = 32  # rewards that the scale is taken from


class BanditState(NamedTuple):
    """EXP3.S over A arms.

    weights: logarithms, normalised.
    arm:     which is held.
    chance:  that it was pulled.
    held:    rewards since it was pulled; 0: the next `pull` draws another one.
    total:   sum of those that count.
    periods: that are over.
    recent:  their mean rewards, a ring.
    """

    weights: Float[Array, " a"]
    arm: Int[Array, ""]
    chance: Float[Array, ""]
    held: Int[Array, ""]
    total: Float[Array, ""]
    periods: Int[Array, ""]
    recent: Float[Array, " h"]


def init(arms: int, recent: int = RECENT) -> BanditState:
    """All arms alike; the first `pull` draws one of them."""
    zero, none = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)
    weights = jnp.full(arms, -jnp.log(jnp.float32(arms)))
    ring = jnp.zeros(recent, jnp.float32)
    return BanditState(weights, none, zero, none, zero, none, ring)


def probabilities(
    state: BanditState, explore: float | Array = 0.1
) -> Float[Array, " a"]:
    """Chances of the next pull: (1 - explore) softmax(weights) + explore / A."""
    return (1 - explore) * jax.nn.softmax(state.weights) + explore / len(state.weights)


def pull(
    state: BanditState, key: Key[Array, ""], explore: float | Array = 0.1
) -> tuple[Int[Array, ""], BanditState]:
    """The arm to use now: the one that is held, or another when its period is over."""
    chances = probabilities(state, explore)
    drawn = jax.random.categorical(key, jnp.log(chances)).astype(jnp.int32)
    fresh = state.held == 0
    arm = jnp.where(fresh, drawn, state.arm)
    chance = jnp.where(fresh, chances[drawn], state.chance)
    return arm, state._replace(arm=arm, chance=chance)


def reward(
    state: BanditState,
    value: Float[Array, ""],
    period: int | Array = 32,
    settle: int | Array = 0,
    rate: float | Array = 0.2,
    share: float | Array = 0.005,
) -> BanditState:
    """Credits the arm that is held; its weight moves at the end of the period.

    With r the mean value of the period, scaled to [-1, 1], and p the chance of arm i:

        u_j = w_j + rate r 1[j = i] / p
        w_j = log((1 - share) softmax(u)_j + share / (A - 1) sum_(k != j) softmax(u)_k)

    Args:
      state: after `pull`; before the first one nothing is credited.
      value: what was gained in this step, in any unit; one that is not finite counts 0.
      period: steps that an arm is held.
      settle: first steps of a period whose value doesn't count, as it is still due to
        the arm before; less than `period`.
      rate: of learning.
      share: of weight that is spread over the other arms, so that none is lost for good
        and the best may change.

    Source: EXP3.S (Auer et al. 2002) as in Graves et al. 2017, arXiv:1704.03003.
    """
    pulled = state.chance > 0
    held = state.held + 1
    counts = jnp.isfinite(value) & (held > settle)
    total = state.total + jnp.where(counts, value, 0.0)
    mean = total / jnp.maximum(held - settle, 1)

    place = state.periods % len(state.recent)
    recent = state.recent.at[place].set(mean)
    periods = state.periods + 1
    gain = rate * scaled(mean, recent, periods) / jnp.maximum(state.chance, 1e-6)
    credited = jax.nn.softmax(state.weights.at[state.arm].add(gain))
    others = (1 - credited) / max(len(credited) - 1, 1)
    weights = jnp.log((1 - share) * credited + share * others)

    over = state._replace(
        weights=weights,
        held=jnp.zeros_like(held),
        total=jnp.zeros_like(total),
        periods=periods,
        recent=recent,
    )
    going = state._replace(held=held, total=total)
    done = held >= period
    after = jax.tree.map(lambda a, b: jnp.where(done, a, b), over, going)
    return jax.tree.map(lambda a, b: jnp.where(pulled, a, b), after, state)


def scaled(
    value: Float[Array, ""],
    recent: Float[Array, " h"],
    known: Int[Array, ""],
    outer: float = 0.2,
) -> Float[Array, ""]:
    """`value` in [-1, 1]: -1 at the `outer` quantile of recent ones, 1 at 1 - `outer`.

    The first `known` places of `recent` count, all once it is full. 0 where the two
    quantiles agree: nothing tells good from bad.
    """
    number = jnp.minimum(known, len(recent))
    filled = jnp.arange(len(recent)) < number
    ordered = jnp.sort(jnp.where(filled, recent, jnp.inf))
    place = lambda q: jnp.round(q * (number - 1)).astype(jnp.int32)
    low, high = ordered[place(outer)], ordered[place(1 - outer)]
    span = jnp.where(high > low, high - low, 1.0)
    within = jnp.clip(2 * (value - low) / span - 1, -1.0, 1.0)
    return jnp.where(high > low, within, 0.0)


def settings(table: Any, arm: Int[Array, ""]) -> Any:
    """The arm's row of a table: a pytree whose leaves are columns, [A, ...]."""
    return jax.tree.map(lambda column: column[arm], table)


def bandit(arms: int, period: int = 32, settle: int = 0) -> Component:
    """As a component: `apply(state, value of the last step, key) -> (arm, state)`."""

    def apply(
        state: BanditState, value: Float[Array, ""], key: Key[Array, ""]
    ) -> tuple[Int[Array, ""], BanditState]:
        return pull(reward(state, value, period, settle), key)

    return Component(init=lambda params: init(arms), apply=apply)
