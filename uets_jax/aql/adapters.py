"""The posterior and the bandit in the form that the streaming selection takes."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from uets_jax.aql.assets import Knobs
from uets_jax.aql.parts import Bandit, Posterior
from uets_jax.measure.scopes import branch
from uets_jax.selection import policy
from uets_jax.types import Metrics, Stats
from uets_jax.uncertainty import laplace

EVERY = 8  # one token in so many is read for the posterior

# What the bandit may do: each arm multiplies or adds to the knobs.
ARMS: dict[str, tuple[tuple[str, float, float], ...]] = {
    "as it is": (),
    "broader": (("temperature", 2.0, 0.0), ("final_temperature", 2.0, 0.0)),
    "sharper": (("temperature", 0.5, 0.0), ("final_temperature", 0.5, 0.0)),
    "half the candidates": (("ratio", 0.5, 0.0),),
    "stricter": (("natural", 0.5, 0.0),),
    "progress": (("progress", 1.0, 0.5),),
    "uncertain": (("uncertainty", 1.0, 0.25),),
}
PERIOD, SETTLE = 32, 8  # steps that an arm is held, and that it is given to show


def last_layer(width: int, outputs: int) -> Posterior:
    """A Laplace posterior of the output head."""
    config = laplace.LaplaceConfig(width=width, outputs=outputs, every=EVERY)
    part = laplace.laplace(config, branch=branch)

    def variances(state: laplace.LaplaceState, stats: Stats) -> Array:
        thin = stats.features[:, EVERY - 1 :: EVERY]
        return laplace.predictive_variance(state, thin)

    def update(
        state: laplace.LaplaceState, stats: Stats, losses: Array, targets: Array
    ) -> tuple[Metrics, laplace.LaplaceState]:
        given = stats.features, losses, stats.collision, targets
        return part.apply(state, *given)

    return Posterior(part.init, variances, update, EVERY)


def bandit() -> Bandit:
    """EXP3.S over `ARMS`, rewarded with what was learned."""
    rows = [{n: (f, a) for n, f, a in changes} for changes in ARMS.values()]
    column = lambda name, part: jnp.array(
        [row.get(name, (1.0, 0.0))[part] for row in rows], jnp.float32
    )
    factors = Knobs(*(column(name, 0) for name in Knobs._fields))
    terms = Knobs(*(column(name, 1) for name in Knobs._fields))

    def init(params: Any) -> policy.BanditState:
        return policy.init(len(ARMS))

    def knobs(state: policy.BanditState, given: Knobs) -> Knobs:
        factor, term = (policy.settings(t, state.arm) for t in (factors, terms))
        return jax.tree.map(lambda k, f, t: k * f + t, given, factor, term)

    def update(
        state: policy.BanditState, value: Array, key: Array
    ) -> tuple[Metrics, policy.BanditState]:
        arm, after = policy.pull(policy.reward(state, value, PERIOD, SETTLE), key)
        best = policy.probabilities(after)
        return {"select_arm": arm, "select_arm_best": best.argmax()}, after

    return Bandit(init, knobs, update)
