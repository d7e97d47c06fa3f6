"""Noisy quadratics with a wide spectrum: the least problem that needs a good rule."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from uets_jax.meta.family import Family
from uets_jax.types import Params

_REFLECTIONS = 3


class Quadratic(NamedTuple):
    """0.5 sum (A (W - goal) B)^2, A and B symmetric with log-uniform eigenvalues.

    left: A [m, m]. right: B [n, n]. goal: the optimum [m, n]. noise: standard deviation
    of the goal that a row of a mini-batch sees; floor: the loss that is always there.
    """

    left: Float[Array, "m m"]
    right: Float[Array, "n n"]
    goal: Float[Array, "m n"]
    noise: Float[Array, ""]
    floor: Float[Array, ""]


def quadratic(
    rows: int = 8, columns: int = 8, condition: float = 1e3, horizon: int = 100
) -> Family:
    """Quadratics in one matrix [rows, columns]; a vector where `columns` is 1.

    Args:
      rows: of the matrix.
      columns: likewise.
      condition: the largest ratio of curvatures; an instance has up to that, drawn on a
        log scale. Curvatures are squares of products of the factors' eigenvalues.
      horizon: nominal steps.

    A mini-batch of 16 rows shows the goal with noise whose gradient covariance is
    proportional to the curvature, as that of a log-likelihood is.
    """
    shape, batch = (rows, columns), 16

    def instance(key: Key[Array, ""]) -> Quadratic:
        one, two = jax.random.split(key)
        flat = jax.random.uniform(one, (2 + rows + columns,))
        sizes = ((_REFLECTIONS, rows), (_REFLECTIONS, columns), shape)
        turns, others, goal = _normals(two, sizes)
        span = 0.3 + 0.7 * flat[0]
        half = 0.5 * span * jnp.log(condition) / (1 if columns == 1 else 2)
        left = _spd(turns, jnp.exp(-half * flat[2 : 2 + rows]))
        right = _spd(others, jnp.exp(-half * flat[2 + rows :]))
        unit = jnp.sqrt(jnp.square(left @ goal @ right).sum())
        noise = 0.3 * 10 ** (3 * flat[1] - 3)
        return Quadratic(left / unit, right, goal, noise, 1e-3 * jnp.ones(()))

    def init(instance: Quadratic, key: Key[Array, ""]) -> Params:
        return {"w": 0.1 * jax.random.normal(key, shape)}

    def loss(
        params: Params, instance: Quadratic, key: Key[Array, ""], rows: Int[Array, ""]
    ) -> Float[Array, ""]:
        some = jnp.sqrt(jnp.clip(rows, 1, batch).astype(jnp.float32))
        away = instance.noise * jax.random.normal(key, shape) / some
        return _value(params, instance, instance.goal + away)

    def held(params: Params, instance: Quadratic) -> Float[Array, ""]:
        return _value(params, instance, instance.goal)

    name = f"quadratic-{rows}x{columns}"
    about = f"noisy quadratics in a {rows}x{columns} matrix, condition to {condition:g}"
    return Family(
        name, instance, init, loss, held, batch, horizon, 0.5, 0.0, about=about
    )


def _value(params: Params, q: Quadratic, goal: Array) -> Float[Array, ""]:
    residual = q.left @ (params["w"] - goal) @ q.right
    return q.floor + 0.5 * jnp.square(residual).sum()


def _normals(key: Key[Array, ""], shapes: Sequence[tuple[int, int]]) -> list[Array]:
    """Standard normal arrays from one draw: each costs a second of compilation."""
    ends = list(itertools.accumulate(a * b for a, b in shapes))
    parts = jnp.split(jax.random.normal(key, (ends[-1],)), ends[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _spd(turns: Float[Array, "k n"], spectrum: Float[Array, " n"]) -> Array:
    """Symmetric [n, n] of these eigenvalues, turned by reflections."""
    matrix = jnp.diag(spectrum)
    for v in turns:
        v = v / jnp.linalg.norm(v)
        matrix = matrix - 2 * v[:, None] * (v @ matrix)[None, :]
        matrix = matrix - 2 * (matrix @ v)[:, None] * v[None, :]
    return matrix
