"""One training run of a task under a rule, step by step, and what it is worth."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from uets_jax.meta.augment import (
    Augmentation,
    AugmentConfig,
    augmentation,
    stored,
    used,
)
from uets_jax.meta.family import Family
from uets_jax.meta.windows import Problem
from uets_jax.optim.schedules import schedule
from uets_jax.types import Hypers, Params

# theta -> the rule; `update` takes value, progress, learning_rate, weight_decay
Make = Callable[[Any], optax.GradientTransformationExtraArgs]

WARMUP, KNOTS, LEAST = 0.05, 33, 0.02
MOST = 3.0  # e-folds of steps that a single run counts for, either way
_TINY, _START = 1e-12, 2**31 - 1


class Episode(NamedTuple):
    """instance: of the family. key: of initial values and mini-batches. drawn: the
    augmentation.
    """

    instance: Any
    key: Key[Array, ""]
    drawn: Augmentation


class Inner(NamedTuple):
    """params: as stored, see `augment`. opt: the rule's state. first: loss at the
    start, on a mini-batch of its own.
    """

    params: Params
    opt: Any
    first: Float[Array, ""]


class Reference(NamedTuple):
    """curve: mean of log(loss / first loss) of the nominal rule, at progress 0, 1/32,
    .., 1. scale: the fall over its second half for every doubling of the steps, in
    e-folds, so that a difference over it is about the log of a speed-up; at least 0.02.
    """

    curve: Float[Array, " 33"]
    scale: Float[Array, ""]


class Run(NamedTuple):
    """The parts of a training run.

    begin:   key -> Episode.
    start:   (theta, episode) -> Inner.
    advance: (theta, inner, episode, t) -> (Inner, log(loss / first loss)) of step t,
             the loss before the update on a fresh mini-batch.
    """

    begin: Callable[[Key[Array, ""]], Episode]
    start: Callable[[Any, Episode], Inner]
    advance: Callable[
        [Any, Inner, Episode, Int[Array, ""]], tuple[Inner, Float[Array, ""]]
    ]


def run(make: Make, family: Family, augment: AugmentConfig, window: int = 1) -> Run:
    """Training on a family: warm-up 5 %, then WSD, with all that `augment` draws.

    Args:
      make: from theta to the rule.
      family: of the tasks.
      augment: what each episode draws.
      window: of which every horizon is a multiple.
    """
    rate = schedule("wsd")

    def begin(key: Key[Array, ""]) -> Episode:
        instance, own, draw = jax.random.split(key, 3)
        made = family.instance(instance)
        like = jax.eval_shape(family.init, made, own)
        sizes = (family.batch, family.horizon, window)
        return Episode(made, own, augmentation(augment, draw, like, *sizes))

    def start(theta: Any, episode: Episode) -> Inner:
        init, batch = jax.random.split(jax.random.fold_in(episode.key, _START))
        params = stored(family.init(episode.instance, init), episode.drawn)
        first = family.loss(
            used(params, episode.drawn), episode.instance, batch, episode.drawn.rows
        )
        return Inner(params, make(theta).init(params), first)

    def advance(
        theta: Any, inner: Inner, episode: Episode, t: Int[Array, ""]
    ) -> tuple[Inner, Float[Array, ""]]:
        drawn, key = episode.drawn, jax.random.fold_in(episode.key, t)
        loss = lambda p: family.loss(used(p, drawn), episode.instance, key, drawn.rows)
        value, grads = jax.value_and_grad(loss)(inner.params)
        steps = drawn.horizon.astype(jnp.float32)
        peak = family.learning_rate * drawn.rate
        hypers = Hypers(peak, jnp.zeros(()), WARMUP * steps, steps)
        updates, opt = make(theta).update(
            grads,
            inner.opt,
            inner.params,
            value=value,
            progress=t / steps,
            learning_rate=rate(hypers, t),
            weight_decay=jnp.asarray(family.weight_decay),
        )
        fall = jnp.log(jnp.maximum(value, _TINY) / jnp.maximum(inner.first, _TINY))
        params = optax.apply_updates(inner.params, updates)
        return Inner(params, opt, inner.first), fall

    return Run(begin, start, advance)


def problem(
    make: Make, family: Family, augment: AugmentConfig, window: int, against: Reference
) -> Problem:
    """The objective of meta-training, to be minimised: in [-3, 3], 0 for the nominal.

    c(t) = clip((log(loss / first) - curve(t / T)) / scale, -3, 3), and 3 where the loss
    is not finite. An episode is worth 0.2 mean c + 0.8 mean c over its last window;
    a window's mean of the values of `step` adds up to that over an episode.
    """
    parts, grid = run(make, family, augment, window), jnp.linspace(0, 1, KNOTS)

    def step(
        theta: Any, inner: Inner, episode: Episode, t: Int[Array, ""]
    ) -> tuple[Inner, Float[Array, ""]]:
        inner, fall = parts.advance(theta, inner, episode, t)
        steps = episode.drawn.horizon
        nominal = jnp.interp(t / steps, grid, against.curve)
        c = jnp.clip((fall - nominal) / against.scale, -MOST, MOST)
        last = jnp.where(t >= steps - window, steps / window, 0.0)
        return inner, (0.2 + 0.8 * last) * jnp.where(jnp.isfinite(fall), c, MOST)

    horizon = lambda episode: episode.drawn.horizon
    return Problem(parts.begin, parts.start, step, horizon, MOST)


def reference(
    make: Make,
    theta: Any,
    family: Family,
    augment: AugmentConfig,
    key: Key[Array, ""],
    episodes: int = 16,
) -> Reference:
    """The curve of a nominal rule on augmented episodes of the nominal horizon.

    Pure; can be jitted. Where the rule diverges, its loss counts as the first one.
    """
    parts, steps = run(make, family, augment), family.horizon

    def one(key: Key[Array, ""]) -> Float[Array, " t"]:
        episode = parts.begin(key)
        drawn = episode.drawn._replace(horizon=jnp.asarray(steps, jnp.int32))
        episode = episode._replace(drawn=drawn)
        step = lambda inner, t: parts.advance(theta, inner, episode, t)
        return jax.lax.scan(step, parts.start(theta, episode), jnp.arange(steps))[1]

    falls = jax.vmap(one)(jax.random.split(key, episodes))
    curve = mean_curve(falls)
    return Reference(curve, doubling(curve))


def mean_curve(falls: Float[Array, "n t"]) -> Float[Array, " 33"]:
    """Smoothed mean of log(loss / first loss); a loss that diverges counts as first."""
    falls = jnp.where(jnp.isfinite(falls), jnp.minimum(falls, 0.0), 0.0).mean(0)
    wide = max(1, len(falls) // KNOTS)
    smooth = jnp.convolve(falls, jnp.ones(wide) / wide, "valid")
    places = jnp.linspace(0, 1, len(smooth))
    return jnp.interp(jnp.linspace(0, 1, KNOTS), places, smooth)


def doubling(curve: Float[Array, " 33"]) -> Float[Array, ""]:
    """What counts as 1, see `Reference`."""
    return jnp.maximum((curve[KNOTS // 2] - curve[-1]) / jnp.log(2.0), LEAST)
