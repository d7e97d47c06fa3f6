"""A small network that gives every parameter its direction (after Celo2).

Source: Moudgil et al. 2026, arXiv:2602.19142 (features and output normalised over the
last two axes, direction only, Newton-Schulz on matrices); Harrison et al. 2022,
arXiv:2209.11208 and Metz et al. 2022, arXiv:2203.11860 (features).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from uets_jax.optim.directions import orthogonal
from uets_jax.optim.leaves import Tree, describe
from uets_jax.optim.norms import safe_rsqrt
from uets_jax.types import Params

WIDTH = 8
MOMENT = 2  # place of the first moment among the features: after g and p
DECAYS = (0.9, 0.99, 0.999)
SECOND_DECAY = 0.95


class MlpTheta(NamedTuple):
    """Weights of a network with two hidden layers; F = `features_of(moments)`."""

    w1: Float[Array, "f w"]
    b1: Float[Array, " w"]
    w2: Float[Array, "w w"]
    b2: Float[Array, " w"]
    w3: Float[Array, "w 1"]


def features_of(moments: int) -> int:
    """How many numbers the network reads of a parameter."""
    return 7 + 3 * moments


def init_mlp(key: Key[Array, ""], moments: int = len(DECAYS)) -> MlpTheta:
    """The first moment's direction, and random features that nothing reads yet.

    Two units carry the positive and the negative part of the first moment through both
    hidden layers, the rest have LeCun's weights; the last layer reads those two alone.

    Args:
      key: of the weights.
      moments: first moments that the network is shown.
    """
    f = features_of(moments)
    one, two = jax.random.split(key)
    draw = lambda key, n, m: jax.random.normal(key, (n, m)) / n**0.5
    zeros, pair = jnp.zeros(WIDTH), jnp.array([1.0, -1.0])
    w1 = draw(one, f, WIDTH).at[:, :2].set(0.0).at[MOMENT, :2].set(pair)
    w2 = draw(two, WIDTH, WIDTH).at[:, :2].set(0.0).at[:2, :2].set(jnp.eye(2))
    w3 = jnp.zeros((WIDTH, 1)).at[:2, 0].set(pair)
    return MlpTheta(w1, zeros, w2, zeros, w3)


def direction(
    theta: MlpTheta,
    g: Float[Array, "l b r c"],
    p: Float[Array, "l b r c"],
    moments: Sequence[Float[Array, "l b r c"]],
    nu: Float[Array, "l b r c"],
) -> Float[Array, "l b r c"]:
    """The output for every entry, with RMS 1 over the last two axes.

    Features, each divided by its RMS over the last two axes: g, p, m, 1/sqrt(v),
    g/sqrt(v), m/sqrt(v), and with v factored into rows and columns (Shazeer & Stern
    2018) 1/sqrt(row), 1/sqrt(column), m and g over the root of their product.
    """
    r = safe_rsqrt(nu)
    row = safe_rsqrt(nu.mean(-1, keepdims=True))
    column = safe_rsqrt(nu.mean(-2, keepdims=True))
    # of v ~ row column / mean, the mean is lost in the normalisation
    both = row * column
    each = [g, p, *moments, r, row, column]
    for x in (g, *moments):
        each += [x * r, x * both]
    x = jnp.stack([_normed(jnp.broadcast_to(e, g.shape)) for e in each], -1)
    bias = lambda b: b.reshape(*(1,) * (x.ndim - 1), -1)
    h = jax.nn.relu(x @ theta.w1 + bias(theta.b1))
    h = jax.nn.relu(h @ theta.w2 + bias(theta.b2))
    return _normed((h @ theta.w3)[..., 0])


def _normed(x: Float[Array, "l b r c"]) -> Float[Array, "l b r c"]:
    return x * safe_rsqrt((x * x).mean((-2, -1), keepdims=True))


class MlpState(NamedTuple):
    """mu: a tree like the parameters for each of `DECAYS`; nu: of squares."""

    mu: tuple[Params, ...]
    nu: Params
    count: Int[Array, ""]


def scale_by_learned_mlp(
    theta: MlpTheta,
    *,
    matrices: Tree | None = None,
    adam_ratio: float = 2.0,
    orthogonalise: bool = True,
    rms: float = 0.2,
) -> optax.GradientTransformationExtraArgs:
    """Hidden matrices follow the network, all other leaves Adam; no rate, no decay.

    Args:
      theta: of `init_mlp`, or learned; may be traced.
      matrices: see `leaves.describe`.
      adam_ratio: factor of Adam's updates, as in `rules.rule`.
      orthogonalise: five Newton-Schulz iterations on the network's output.
      rms: of the update of every matrix.
    """

    def label(params: Params) -> Any:
        kinds = ["adam" if leaf.axes is None else "mlp" for leaf in of(params)]
        return jax.tree.unflatten(jax.tree.structure(params), kinds)

    of = lambda params: describe(params, matrices)
    network = _network(theta, of, orthogonalise, rms)
    adam = optax.chain(optax.scale_by_adam(b2=0.95), optax.scale(adam_ratio))
    return optax.partition({"mlp": network, "adam": adam}, label)


def _network(
    theta: MlpTheta, of: Any, orthogonalise: bool, rms: float
) -> optax.GradientTransformationExtraArgs:
    def init(params: Params) -> MlpState:
        zeros = lambda: jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)
        mu = tuple(zeros() for _ in DECAYS)
        return MlpState(mu, zeros(), jnp.zeros((), jnp.int32))

    def update(updates, state, params=None, **extra):
        if params is None:
            raise ValueError("scale_by_learned_mlp: update needs `params`")
        f32 = lambda x: x.astype(jnp.float32)
        mix = lambda b: lambda m, g: b * m + (1 - b) * f32(g)
        mu = tuple(
            jax.tree.map(mix(b), m, updates)
            for b, m in zip(DECAYS, state.mu, strict=True)
        )
        squares = jax.tree.map(lambda g: f32(g) ** 2, updates)
        nu = jax.tree.map(mix(SECOND_DECAY), state.nu, squares)

        def leafwise(leaf, g, p, v, *m):
            view = lambda x: leaf.as_matrices(leaf.rows(x))
            u = direction(theta, view(g), view(p), [view(x) for x in m], view(v))
            u = rms * _normed(orthogonal(u) if orthogonalise else u)
            return leaf.whole(leaf.from_matrices(u)).astype(p.dtype)

        flat, treedef = jax.tree.flatten(updates)
        given = [treedef.flatten_up_to(tree) for tree in (params, nu, *mu)]
        each = zip(of(params), flat, *given, strict=True)
        out = [leafwise(*leaf) for leaf in each]
        after = MlpState(mu, nu, optax.safe_increment(state.count))
        return jax.tree.unflatten(treedef, out), after

    return optax.GradientTransformationExtraArgs(init, update)
