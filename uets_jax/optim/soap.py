"""SOAP: Adam in the eigenbasis of Shampoo's factors."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from uets_jax.optim.matrices import (
    Axes,
    Matrices,
    batch_axes,
    from_matrices,
    sizes,
    to_matrices,
    wide,
)
from uets_jax.types import Params


class Sides(NamedTuple):
    """Of a leaf of matrices [*batch, m, n]; None for a side that is left alone.

    age:         updates in this basis, whatever it has become since it began.
    left, right: Shampoo's factors, averages of G G' and G' G.
    left_basis, right_basis: their eigenvectors in columns, by falling eigenvalue.
    """

    age: Int[Array, "*batch"] | None
    left: Float[Array, "*batch m m"] | None
    right: Float[Array, "*batch n n"] | None
    left_basis: Float[Array, "*batch m m"] | None
    right_basis: Float[Array, "*batch n n"] | None


class SoapState(NamedTuple):
    """mu mirrors params, nu as well, but in the eigenbasis; taken: last time's arms."""

    count: Int[Array, ""]
    mu: Params
    nu: Params
    sides: Any
    taken: dict[str, Int[Array, ""]]


BEGIN, REFRESH = "soap_begin", "soap_refresh"
Branch = Callable[..., Any]


def plain(name: str, predicate: Any, true: Any, false: Any, *operands: Any) -> Any:
    """`lax.cond`; `measure.scopes.branch` in its place charges arms by their runs."""
    return jax.lax.cond(predicate, true, false, *operands)


def scale_by_soap(
    matrices: Matrices,
    b1: float = 0.9,
    b2: float = 0.95,
    eps: float = 1e-8,
    every: int = 10,
    max_dim: int = 2048,
    branch: Branch = plain,
) -> optax.GradientTransformation:
    """Q_L (m~ / (sqrt(v) + eps)) Q_R', with m~ = Q_L' m Q_R and v of squares of
    Q_L' G Q_R, both with their bias corrected.

    Each `every` steps one power iteration, Q <- qr(L Q), follows the factor L, after
    its columns (and v with them) were put in the order of diag(Q' L Q). A matrix whose
    factor is still zero begins: its bases are the eigenvectors of its first gradient's
    factors, v begins anew, and its update is 0, because in a basis of its own the
    gradient is diagonal, and Adam would make the rounding around it as large. That is
    also what happens to a matrix of another shape after growth.

    Args:
      matrices: (input axes, output axes) of each leaf; all other axes are of a stack of
        matrices. Leaves that are none (None) get Adam.
      b1, b2, eps: Adam's; b2 also of the factors.
      every: steps between two refreshes.
      max_dim: a side longer than this keeps the identity for a basis; 0: all do, which
        is Adam.
      branch: `uets_jax.measure.scopes.branch` where the FLOPs of both arms are counted;
        its names are `BEGIN` and `REFRESH`, and the state's `taken` says which came.

    Source: Vyas et al. 2024, "SOAP" (arXiv:2409.11321), algorithm 3 and their code,
    but for the momentum, which is kept in the parameters' own coordinates and
    counts the first gradient.
    """

    def init(params: Params) -> SoapState:
        zeros = lambda p: jnp.zeros(p.shape, wide(p.dtype))
        number = lambda: jnp.zeros((), jnp.int32)
        return SoapState(
            number(),
            jax.tree.map(zeros, params),
            jax.tree.map(zeros, params),
            jax.tree.map(lambda p, a: _sides(p, a, max_dim), params, matrices(params)),
            {BEGIN: number(), REFRESH: number()},
        )

    def update(updates, state, params=None):
        like = jax.tree.structure(updates)
        trees = (updates, state.mu, state.nu, state.sides, matrices(updates))
        leaves = [like.flatten_up_to(tree) for tree in trees]
        count = optax.safe_increment(state.count)
        one = lambda *leaf: _one(*leaf, count.astype(jnp.float32), b1, b2, eps)
        found = [one(*leaf) for leaf in zip(*leaves, strict=True)]
        step, mu, nu, sides, begins = ([leaf[i] for leaf in found] for i in range(5))

        flags = [x.any() for x in begins if x is not None]
        begin = jnp.stack(flags).any() if flags else jnp.zeros((), bool)
        refresh = count % every == 0
        follow = lambda *x: _refreshed(leaves[-1], *x)
        sides = branch(BEGIN, begin, _begun, lambda s, _: s, sides, begins)
        nu, sides = branch(REFRESH, refresh, follow, lambda *x: x, nu, sides)
        taken = {BEGIN: begin.astype(jnp.int32), REFRESH: refresh.astype(jnp.int32)}
        join = lambda each: jax.tree.unflatten(like, each)
        return join(step), SoapState(count, join(mu), join(nu), join(sides), taken)

    return optax.GradientTransformation(init, update)


def _sides(p: Any, axes: Axes | None, max_dim: int) -> Sides:
    """Nothing yet: factors of zeros, the identity for a basis."""
    if axes is None or min(sizes(p.shape, axes)) > max_dim:
        return Sides(None, None, None, None, None)
    batch = tuple(p.shape[a] for a in batch_axes(len(p.shape), axes))
    square = [n if n <= max_dim else None for n in sizes(p.shape, axes)]
    zeros = [n and jnp.zeros((*batch, n, n), wide(p.dtype)) for n in square]
    eye = lambda z: (
        z
        + jnp.eye(z.shape[-1], dtype=z.dtype).reshape((1,) * len(batch) + z.shape[-2:])
    )
    bases = [None if z is None else eye(z) for z in zeros]
    return Sides(jnp.zeros(batch, jnp.int32), *zeros, *bases)


def _one(
    g: Array,
    mu: Array,
    nu: Array,
    sides: Sides,
    axes: Axes | None,
    count: Float[Array, ""],
    b1: Any,
    b2: Any,
    eps: Any,
) -> tuple[Array, Array, Array, Sides, Bool[Array, "*batch"] | None]:
    """A leaf's update, mu, nu, its factors, and which of its matrices begin."""
    x = g.astype(mu.dtype)
    mu = (b1 * mu + (1 - b1) * x).astype(mu.dtype)
    first = mu / (1 - b1**count).astype(mu.dtype)
    if axes is None or sides.age is None:
        nu = (b2 * nu + (1 - b2) * jnp.square(x)).astype(nu.dtype)
        second = nu / (1 - b2**count).astype(nu.dtype)
        return (first / (jnp.sqrt(second) + eps)).astype(g.dtype), mu, nu, sides, None

    gradient, first = to_matrices(x, axes), to_matrices(first, axes)
    zero = _zero(sides)
    new = zero[..., None, None]
    age = jnp.where(zero, 0, sides.age + 1)
    square = jnp.square(_rotated(sides, gradient))
    v = jnp.where(new, 0, b2 * to_matrices(nu, axes) + (1 - b2) * square)
    bias = 1 - b2 ** jnp.maximum(age, 1).astype(v.dtype)
    scaled = _rotated(sides, first) / (jnp.sqrt(v / bias[..., None, None]) + eps)
    step = jnp.where(new, 0, _rotated(sides, scaled, back=True))

    mix = lambda old, now: old if old is None else (b2 * old + (1 - b2) * now(gradient))
    turn = lambda m: jnp.swapaxes(m, -1, -2)
    left = mix(sides.left, lambda m: _matmul(m, turn(m)))
    right = mix(sides.right, lambda m: _matmul(turn(m), m))
    after = sides._replace(age=age, left=left, right=right)
    restore = lambda m, like: from_matrices(m, axes, g.shape).astype(like.dtype)
    return restore(step, g), mu, restore(v, nu), after, zero & ~_zero(after)


def _zero(sides: Sides) -> Bool[Array, "*batch"]:
    """Matrices one of whose factors has seen no gradient."""
    traces = [
        jnp.trace(factor, axis1=-2, axis2=-1)
        for factor in (sides.left, sides.right)
        if factor is not None
    ]
    return jnp.stack(traces).min(0) == 0


def _matmul(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")


def _rotated(sides: Sides, m: Array, back: bool = False) -> Array:
    """Q_L' m Q_R; back: Q_L m Q_R'."""
    left, right = sides.left_basis, sides.right_basis
    turn = lambda q, yes: jnp.swapaxes(q, -1, -2) if yes else q
    m = m if left is None else _matmul(turn(left, not back), m)
    return m if right is None else _matmul(m, turn(right, back))


def _begun(sides: list[Sides], begins: list[Any]) -> list[Sides]:
    """With the eigenvectors of their factors as bases, where they begin."""

    def basis(factor, old, begins):
        if factor is None:
            return None
        return jnp.where(begins[..., None, None], _eigenvectors(factor), old)

    def one(s: Sides, begins: Any) -> Sides:
        left = basis(s.left, s.left_basis, begins)
        right = basis(s.right, s.right_basis, begins)
        return s._replace(left_basis=left, right_basis=right)

    return list(map(one, sides, begins))


def _eigenvectors(factor: Float[Array, "*batch n n"]) -> Float[Array, "*batch n n"]:
    """In columns, by falling eigenvalue.

    One matrix after another: a call for many waits on a CPU for threads of the pool
    that it runs in, without end where several devices share the pool. For several
    devices and sides above 100 set OPENBLAS_NUM_THREADS=1 as well.
    """
    one = lambda m: jnp.linalg.eigh(m, symmetrize_input=False)[1][:, ::-1]
    flat = factor.reshape(-1, *factor.shape[-2:])
    return jax.lax.map(one, flat).reshape(factor.shape)


def _refreshed(
    axes: list[Axes | None], nus: list[Array], sides: list[Sides]
) -> tuple[list[Array], list[Sides]]:
    """One power iteration of the bases; nu follows the order of their columns."""

    def one(axes: Any, nu: Array, s: Sides) -> tuple[Array, Sides]:
        if s.age is None:
            return nu, s
        old = (s.age == 0)[..., None, None]
        v = to_matrices(nu, axes)
        turned, left = _iterated(s.left, s.left_basis, v, -2)
        turned, right = _iterated(s.right, s.right_basis, turned, -1)
        keep = lambda was, now: was if was is None else jnp.where(old, was, now)
        after = s._replace(
            left_basis=keep(s.left_basis, left), right_basis=keep(s.right_basis, right)
        )
        return from_matrices(jnp.where(old, v, turned), axes, nu.shape), after

    pairs = list(map(one, axes, nus, sides))
    return [nu for nu, _ in pairs], [s for _, s in pairs]


def _iterated(
    factor: Array | None, basis: Array | None, v: Array, axis: int
) -> tuple[Array, Array | None]:
    """(v in the new order along `axis`, the basis after qr(factor basis))."""
    if factor is None or basis is None:
        return v, None
    power = _matmul(factor, basis)
    trace = jnp.trace(factor, axis1=-2, axis2=-1)[..., None, None]
    power = power + jnp.finfo(power.dtype).eps * trace * basis  # where L is singular
    order = jnp.argsort(-(basis * power).sum(-2), axis=-1)
    v = jnp.take_along_axis(v, jnp.expand_dims(order, -3 - axis), axis)
    power = jnp.take_along_axis(power, order[..., None, :], -1)
    return v, _orthonormal(power)


def _orthonormal(m: Float[Array, "*batch n k"]) -> Float[Array, "*batch n k"]:
    """Q of a QR decomposition, by Gram-Schmidt, every column projected twice.

    In plain operations: LAPACK's QR inside this program stalls XLA on a CPU.
    """
    k = m.shape[-1]
    tiny = jnp.finfo(m.dtype).tiny

    def column(q: Array, i: Array) -> tuple[Array, None]:
        """Columns from `i` on are still zero."""
        x = jnp.take(m, i, axis=-1)[..., None]
        x = x / (jnp.sqrt(jnp.square(x).sum(-2, keepdims=True)) + tiny)
        for _ in range(2):
            x = x - _matmul(q, _matmul(jnp.swapaxes(q, -1, -2), x))
            x = x / (jnp.sqrt(jnp.square(x).sum(-2, keepdims=True)) + tiny)
        here = (jnp.arange(k) == i).astype(m.dtype).reshape((1,) * (m.ndim - 1) + (k,))
        return q + x * here, None

    return jax.lax.scan(column, jnp.zeros_like(m), jnp.arange(k))[0]
