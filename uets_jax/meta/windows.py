"""What all estimators share: a problem in steps, and a window of its episodes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from uets_jax.types import Metrics


class Problem(NamedTuple):
    """A sequence of steps that theta steers; a pure function of theta and its episode.

    begin:   key -> episode. All randomness of the episode comes from there, so that
             equal episodes see equal data, whatever theta is.
    start:   (theta, episode) -> inner state at step 0.
    step:    (theta, inner, episode, t) -> (inner, value of the step, to be minimised).
    horizon: episode -> its number of steps, a multiple of the window.
    worst:   what a value counts as that is not finite.
    """

    begin: Callable[[Key[Array, ""]], Any]
    start: Callable[[Any, Any], Any]
    step: Callable[[Any, Any, Any, Int[Array, ""]], tuple[Any, Float[Array, ""]]]
    horizon: Callable[[Any], Int[Array, ""]]
    worst: float = 1.0


class Carry(NamedTuple):
    """What stands between two windows; every leaf has a leading axis of episodes.

    inner: states, with a second axis of the two signs for `nres` and `pes`.
    step:  of each episode. end: at which it is replaced.
    noise: like theta: the episode's own (`nres`), the sum of its past (`pes`), or ().
    """

    episode: Any
    inner: Any
    step: Int[Array, " n"]
    end: Int[Array, " n"]
    noise: Any


def keyless(problem: Problem) -> Problem:
    """The same problem, its keys stored as plain integers between its functions.

    Episodes are selected and saved; keys of either kind would count as used by that.
    """
    like = jax.eval_shape(lambda: problem.begin(jax.random.key(0)))
    kinds = jax.tree.map(lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key), like)

    def bare(episode: Any) -> Any:
        plain = lambda x, is_key: jax.random.key_data(x) if is_key else x
        return jax.tree.map(plain, episode, kinds)

    def whole(episode: Any) -> Any:
        key = lambda x, is_key: jax.random.wrap_key_data(x) if is_key else x
        return jax.tree.map(key, episode, kinds)

    return problem._replace(
        begin=lambda key: bare(problem.begin(key)),
        start=lambda theta, episode: problem.start(theta, whole(episode)),
        step=lambda theta, inner, episode, t: problem.step(
            theta, inner, whole(episode), t
        ),
        horizon=lambda episode: problem.horizon(whole(episode)),
    )


def first_carry(
    problem: Problem, n: int, window: int, theta: Any, key: Key[Array, ""]
) -> Carry:
    """New episodes; their inner states are made when they are run."""
    keys, ends = jax.random.split(key)
    episode = jax.vmap(problem.begin, axis_size=n)(jax.random.split(keys, n))
    inner = jax.eval_shape(
        jax.vmap(problem.start, (None, 0), axis_size=n), theta, episode
    )
    blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), inner)
    windows = jax.vmap(problem.horizon, axis_size=n)(episode) // window
    end = window * jax.random.randint(ends, (n,), 1, windows + 1)
    return Carry(episode, blank, jnp.zeros(n, jnp.int32), end, ())


def unroll(
    problem: Problem,
    window: int,
    theta: Any,
    inner: Any,
    episode: Any,
    first: Int[Array, ""],
    remat: bool = False,
) -> tuple[Any, Float[Array, ""], Float[Array, ""]]:
    """The inner state after a window, the mean value, the share that is not finite."""
    begun = problem.start(theta, episode)
    held = jax.tree.map(jax.lax.stop_gradient, inner)
    inner = jax.tree.map(lambda a, b: jnp.where(first == 0, a, b), begun, held)
    step = jax.checkpoint(problem.step) if remat else problem.step

    def body(inner: Any, i: Array) -> tuple[Any, tuple[Array, Array]]:
        inner, value = step(theta, inner, episode, first + i)
        sound = jnp.isfinite(value)
        return inner, (jnp.where(sound, value, problem.worst), ~sound)

    inner, (values, broken) = jax.lax.scan(body, inner, jnp.arange(window))
    return inner, values.mean(), broken.mean()


def replaced(
    problem: Problem, window: int, carry: Carry, done: Array, key: Key[Array, ""]
) -> Carry:
    """Moves on by a window; where `done`, to a new episode."""
    n = len(done)
    new = jax.vmap(problem.begin, axis_size=n)(jax.random.split(key, n))
    end = jax.vmap(problem.horizon, axis_size=n)(new)
    return carry._replace(
        episode=where_done(done, new, carry.episode),
        step=jnp.where(done, 0, carry.step + window),
        end=jnp.where(done, end, carry.end),
    )


def where_done(done: Array, new: Any, old: Any) -> Any:
    """`new` for the episodes [n] that are done, `old` for the others."""
    pick = jax.vmap(lambda d, a, b: jnp.where(d, a, b))
    return jax.tree.map(lambda a, b: pick(done, a, b), new, old)


def window_metrics(values: Array, done: Array, broken: Array, apart: Array) -> Metrics:
    """See `Estimator`; `apart` are its differences or norms."""
    return {
        "value": values.mean(),
        "finished": done.sum(),
        "broken": broken.mean(),
        "spread": apart.std(),
    }
