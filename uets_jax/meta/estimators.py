"""Gradients of what a whole run is worth, from windows of a few of its steps.

    nres    one noise per episode, kept over its windows: unbiased, little variance
            (Li et al. 2023, arXiv:2304.12180; Vicol et al. 2023, arXiv:2304.11153)
    pes     a new noise in every window, all of an episode's summed up: unbiased
            (Vicol et al. 2021, arXiv:2112.13835)
    tbptt   backpropagation inside the window: no smoothing, blind to later windows

A window is one pure function of (theta, state, key). Its episodes stand at different
steps; the one that has ended gives its place to a new one inside the same program.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Key

from uets_jax.errors import UserError
from uets_jax.meta.jitted import quick_jit
from uets_jax.meta.windows import (
    Carry,
    Problem,
    first_carry,
    keyless,
    replaced,
    unroll,
    where_done,
    window_metrics,
)
from uets_jax.types import Metrics

NAMES = ("nres", "pes", "tbptt")


class Estimator(NamedTuple):
    """init:   (theta, key) -> Carry.
    window: (theta, carry, key, sizes) -> (gradient like theta, Carry, metrics).

    `sizes`: like theta, the standard deviation of the noise of every number, traced;
    a number whose size is 0 is not learned, its gradient is 0.

    The gradient is of the mean value of a step, averaged over the windows of an
    episode. Metrics: `value` of the window, `finished` episodes, share `broken` of
    values that were not finite, `spread` of the differences between signs (or of
    gradient norms).
    """

    init: Callable[[Any, Key[Array, ""]], Carry]
    window: Callable[[Any, Carry, Key[Array, ""], Any], tuple[Any, Carry, Metrics]]


def sizes_like(theta: Any, sigma: float, learned: Any = None) -> Any:
    """`sizes` of an estimator: sigma, and 0 where `learned` is False.

    Args:
      theta: what is learned.
      sigma: above 0.
      learned: like theta; for each leaf a bool, or a mask that broadcasts to it. None:
        all is learned.

    Raises:
      UserError: if sigma is not above 0 or nothing is learned.
    """
    if not sigma > 0:
        raise UserError("estimator.sigma: must be above 0")
    if learned is None:
        learned = jax.tree.map(lambda _: True, theta)

    def size(x: Any, mask: Any) -> Array:
        return sigma * jnp.broadcast_to(jnp.asarray(mask, jnp.float32), jnp.shape(x))

    sizes = jax.tree.map(size, theta, learned)
    if not any(bool(s.any()) for s in jax.tree.leaves(sizes)):
        raise UserError("estimator: no leaf of theta is to be learned")
    return sizes


def estimator(name: str, problem: Problem, episodes: int, window: int) -> Estimator:
    """An estimator by name.

    Args:
      name: nres, pes or tbptt.
      problem: whose horizons are multiples of `window`.
      episodes: at a time; for nres and pes each is run twice, with theta + noise and
        theta - noise on the same data.
      window: steps.

    First episodes end early, at a random window, so that later ones are out of step.

    Raises:
      UserError: for an unknown name or a number that is not above 0.
    """
    for field, value in (("episodes", episodes), ("window", window)):
        if not value > 0:
            raise UserError(f"estimator.{field}: must be above 0")
    problem = keyless(problem)
    if name == "tbptt":
        return _truncated(problem, episodes, window)
    if name not in ("nres", "pes"):
        raise UserError(f"estimator {name!r}: choose from nres, pes, tbptt")
    return _evolution(problem, episodes, window, keep=name == "nres")


def compile_window(
    made: Estimator, episodes: int, mesh: Mesh | None = None
) -> Callable[[Any, Carry, Key[Array, ""], Any], tuple[Any, Carry, Metrics]]:
    """The jitted window; the carry is donated.

    Args:
      made: the estimator.
      episodes: that it runs.
      mesh: over whose first axis the episodes are split; theta is on every device.

    Raises:
      UserError: if the episodes can't be split evenly.
    """
    if mesh is None:
        return quick_jit(made.window, donate_argnums=1)
    axis = mesh.axis_names[0]
    if episodes % mesh.shape[axis]:
        raise UserError(
            f"estimator.episodes: {episodes} can't be split over "
            f"{mesh.shape[axis]} devices"
        )
    whole = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec(axis))
    return quick_jit(
        made.window,
        in_shardings=(whole, split, whole, whole),
        out_shardings=(whole, split, whole),
        donate_argnums=1,
    )


def _evolution(problem: Problem, episodes: int, window: int, keep: bool) -> Estimator:
    """Antithetic evolution strategies; `keep`: the noise over an episode's windows."""

    def normal(theta: Any, key: Key[Array, ""]) -> Any:
        leaves, tree = jax.tree.flatten(theta)
        keys = jax.random.split(key, len(leaves))
        draw = lambda k, x: jax.random.normal(k, (episodes, *x.shape), x.dtype)
        return jax.tree.unflatten(tree, list(map(draw, keys, leaves)))

    def init(theta: Any, key: Key[Array, ""]) -> Carry:
        first, noise = jax.random.split(key)
        carry = first_carry(problem, episodes, window, theta, first)
        twice = lambda x: jnp.stack([x, x], 1)
        zeros = lambda x: jnp.zeros((episodes, *x.shape), x.dtype)
        own = normal(theta, noise) if keep else jax.tree.map(zeros, theta)
        return carry._replace(inner=jax.tree.map(twice, carry.inner), noise=own)

    def step_window(
        theta: Any, carry: Carry, key: Key[Array, ""], sizes: Any
    ) -> tuple[Any, Carry, Metrics]:
        new, draw = jax.random.split(key)
        fresh = normal(theta, draw)
        past = carry.noise
        weight = past if keep else jax.tree.map(jnp.add, past, fresh)

        def pair(carry: Carry, noise: Any) -> tuple[Any, Array, Array]:
            both = _signed(theta, noise, sizes)
            go = lambda theta, inner: unroll(
                problem, window, theta, inner, carry.episode, carry.step
            )
            return jax.vmap(go)(both, carry.inner)

        inner, values, broken = jax.vmap(pair)(carry, past if keep else fresh)
        apart = (values[:, 0] - values[:, 1]) / 2
        gradient = jax.tree.map(lambda n, s: _weighted(apart, n, s), weight, sizes)
        done = carry.step + window >= carry.end
        other = fresh if keep else jax.tree.map(jnp.zeros_like, weight)
        noise = where_done(done, other, weight)
        after = carry._replace(inner=inner, noise=noise)
        metrics = window_metrics(values.mean(1), done, broken, apart)
        return gradient, replaced(problem, window, after, done, new), metrics

    return Estimator(init, step_window)


def _truncated(problem: Problem, episodes: int, window: int) -> Estimator:
    def init(theta: Any, key: Key[Array, ""]) -> Carry:
        return first_carry(problem, episodes, window, theta, key)

    def step_window(
        theta: Any, carry: Carry, key: Key[Array, ""], sizes: Any
    ) -> tuple[Any, Carry, Metrics]:
        def value(theta: Any, carry: Carry) -> tuple[Array, tuple[Any, Array]]:
            inner, mean, broken = unroll(
                problem, window, theta, carry.inner, carry.episode, carry.step, True
            )
            return mean, (inner, broken)

        each = jax.vmap(jax.value_and_grad(value, has_aux=True), (None, 0))
        (values, (inner, broken)), grads = each(theta, carry)
        squares = [
            jnp.square(g).reshape(episodes, -1).sum(1) for g in jax.tree.leaves(grads)
        ]
        norms = jnp.sqrt(sum(squares))
        sound = jnp.isfinite(norms)
        grads = where_done(sound, grads, jax.tree.map(jnp.zeros_like, grads))
        learned = lambda g, s: jnp.where(s > 0, g.mean(0), 0.0)
        gradient = jax.tree.map(learned, grads, sizes)
        done = carry.step + window >= carry.end
        metrics = window_metrics(values, done, broken, jnp.where(sound, norms, 0.0))
        after = carry._replace(inner=inner)
        return gradient, replaced(problem, window, after, done, key), metrics

    return Estimator(init, step_window)


def _signed(theta: Any, noise: Any, sizes: Any) -> Any:
    """theta + size noise and theta - size noise, stacked."""
    both = lambda x, n, s: jnp.stack([x + s * n, x - s * n])
    return jax.tree.map(both, theta, noise, sizes)


def _weighted(by: Float[Array, " n"], noise: Array, size: Array) -> Array:
    total = jnp.tensordot(by.astype(noise.dtype), noise, 1) / len(by)
    return jnp.where(size > 0, total / jnp.where(size > 0, size, 1.0), 0.0)
