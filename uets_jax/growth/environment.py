"""A surrogate of training with growth, to search policies in: pure, to be vmapped.

The loss follows `growth.law`, what a policy sees is made of noisy losses by the same
estimator and the same features as in a run. An episode is a run; between two of its
decisions a part of the tokens is trained on. Its reward telescopes:

    sum_i (L_i - L_i+1) - price (C_i+1 - C_i) / C_ref
        = (loss before the first step - final loss) - price FLOPs / C_ref

with C_ref the FLOPs of the whole run at the last size of its ladder.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from uets_jax.growth.law import Law, gap, mixed
from uets_jax.growth.score import Situation, features, score
from uets_jax.measure import slope


class Setting(NamedTuple):
    """One run.

    ladder: sizes in order; the last one is repeated where a ladder is shorter.
    tokens: of the run.
    price:  nats that C_ref FLOPs are worth.
    """

    ladder: Int[Array, " rungs"]
    tokens: Float[Array, ""]
    price: Float[Array, ""]


class Rules(NamedTuple):
    """Of all runs; static. Shares of the run, and losses seen between two decisions."""

    decisions: int = 20
    earliest: float = 0.1
    decay: float = 0.6
    points: int = 8


RULES = Rules()


class View(NamedTuple):
    """Asked about: features of the next stage, progress, number of stages taken."""

    features: Float[Array, " f"]
    progress: Float[Array, ""]
    rung: Int[Array, ""]


Act = Callable[[View, Key[Array, ""]], Bool[Array, ""]]


class Episode(NamedTuple):
    """rewards, asked, taken, features: of every decision; one that was not asked, too
    early, too late or at the last size, takes nothing."""

    reward: Float[Array, ""]
    loss: Float[Array, ""]
    flops: Float[Array, ""]
    rewards: Float[Array, " s"]
    asked: Bool[Array, " s"]
    taken: Bool[Array, " s"]
    features: Float[Array, "s f"]


class _State(NamedTuple):
    rung: Array
    since: Array  # tokens at the last change
    apart: Array  # nats above the static curve then
    flops: Array
    loss: Array
    changed: Array  # progress at the last change
    seen: slope.SlopeState


def greedy(weights: Float[Array, " f"]) -> Act:
    """Takes the stage where the score is above 0."""
    return lambda view, key: score(weights, view.features) > 0


def sampled(weights: Float[Array, " f"]) -> Act:
    """Takes the stage with probability sigmoid(score)."""

    def act(view: View, key: Key[Array, ""]) -> Bool[Array, ""]:
        return jax.random.bernoulli(key, jax.nn.sigmoid(score(weights, view.features)))

    return act


def timed(shares: Float[Array, " stages"]) -> Act:
    """Takes each stage once its share of the tokens is reached; 1: never."""
    return lambda view, key: view.progress >= shares[view.rung]


def episode(
    law: Law,
    act: Act,
    key: Key[Array, ""],
    setting: Setting,
    rules: Rules = RULES,
) -> Episode:
    """A whole run under a policy.

    Args:
      law: arrays of JAX.
      act: asked at each decision from `rules.earliest` on, before `rules.decay`.
      key: of the noise, and of the policy.
      setting: of the run.
      rules: of all runs.
    """
    zero = jnp.zeros((), jnp.float32)
    start = jnp.asarray(law.start, jnp.float32)
    first = _State(
        jnp.zeros((), jnp.int32), zero, zero, zero, start, zero, slope.init()
    )
    interval = lambda state, n: _interval(law, act, setting, rules, key, state, n)
    numbers = jnp.arange(rules.decisions)
    last, (rewards, asked, taken, seen) = jax.lax.scan(interval, first, numbers)
    drop = law.drop[setting.ladder[last.rung]]
    rewards = rewards.at[-1].add(drop)
    return Episode(
        rewards.sum(), last.loss - drop, last.flops, rewards, asked, taken, seen
    )


def _interval(
    law: Law,
    act: Act,
    setting: Setting,
    rules: Rules,
    key: Key[Array, ""],
    state: _State,
    number: Int[Array, ""],
) -> tuple[_State, Any]:
    """A decision, and the training up to the next one."""
    chance, noise = jax.random.split(jax.random.fold_in(key, number))
    progress = number / rules.decisions
    tokens = progress * setting.tokens
    view, more = _view(law, setting, state, progress, tokens)
    open_ = (progress >= rules.earliest) & (progress < rules.decay) & more
    take = open_ & act(view, chance)
    grown = _grown(law, setting, state, progress, tokens)
    state_now = jax.tree.map(lambda a, b: jnp.where(take, a, b), grown, state)
    after = _trained(law, setting, rules, state_now, tokens, noise)
    spent = (after.flops - state.flops) / _reference(law, setting)
    reward = state.loss - after.loss - setting.price * spent
    return after, (reward, open_, take, view.features)


def _next(setting: Setting, rung: Array) -> Array:
    return setting.ladder[jnp.minimum(rung + 1, setting.ladder.shape[0] - 1)]


def _reference(law: Law, setting: Setting) -> Array:
    return setting.tokens * law.cost[setting.ladder[-1]]


def _view(
    law: Law, setting: Setting, state: _State, progress: Array, tokens: Array
) -> tuple[View, Array]:
    """What the policy sees, and whether there is a next stage."""
    size, after = setting.ladder[state.rung], _next(setting, state.rung)
    fall = slope.read(state.seen)
    seen = features(
        Situation(
            progress=progress,
            slope=fall.slope,
            error=fall.error,
            age=progress - state.changed,
            flops=state.flops,
            rate=law.cost[size],
            next_rate=law.cost[after],
            last_rate=law.cost[setting.ladder[-1]],
            left=setting.tokens - tokens,
            steps=setting.tokens,
            cost=setting.price,
        )
    )
    return View(seen, progress, state.rung), after != size


def _grown(
    law: Law, setting: Setting, state: _State, progress: Array, tokens: Array
) -> _State:
    """At the next size; the slope is learned anew."""
    size, after = setting.ladder[state.rung], _next(setting, state.rung)
    before = mixed(law, size, tokens, state.apart, state.since, jnp.exp)
    return state._replace(
        rung=jnp.minimum(state.rung + 1, setting.ladder.shape[0] - 1),
        since=tokens,
        apart=gap(law, before, after, tokens),
        changed=progress,
        seen=slope.init(),
    )


def _trained(
    law: Law,
    setting: Setting,
    rules: Rules,
    state: _State,
    tokens: Array,
    key: Key[Array, ""],
) -> _State:
    """After the tokens of one interval. Each loss seen is a mean over its steps."""
    size = setting.ladder[state.rung]
    part = setting.tokens / (rules.decisions * rules.points)
    noise = law.noise * jnp.sqrt(law.batch / part)
    ends = part * jnp.arange(1, rules.points + 1)
    losses = mixed(law, size, tokens + ends, state.apart, state.since, jnp.exp)
    heard = losses + noise * jax.random.normal(key, losses.shape)
    flops = state.flops + law.cost[size] * ends
    add = lambda seen, point: (slope.update(seen, *point), None)
    seen, _ = jax.lax.scan(add, state.seen, (flops, heard))
    return state._replace(flops=flops[-1], loss=losses[-1], seen=seen)
