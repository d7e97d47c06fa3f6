"""NorMuon: Muon whose orthogonal update is normalised neuron by neuron."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from uets_jax.optim.matrices import Matrices, map_matrices, wide
from uets_jax.types import Params


class NeuronState(NamedTuple):
    """Mean squares of each neuron's update: params' shapes, with 1 for input axes."""

    nu: Params


def scale_by_normuon(
    matrices: Matrices, momentum: float = 0.95, b2: float = 0.95, eps: float = 1e-8
) -> optax.GradientTransformation:
    """`scale_by_orthogonal`, then `scale_by_neurons`, on the matrices of a tree.

    Args:
      matrices: (input axes, output axes) of each leaf; all other axes are of a stack of
        matrices. Leaves that are none (None) come out as they went in.
      momentum: of the gradients, before they are orthogonalised.
      b2: decay of the neurons' mean squares.
      eps: added to denominators.

    Source: Li et al. 2025, "NorMuon" (arXiv:2510.05491), with the scaling of their
    code: the update keeps its norm.
    """
    inner = optax.chain(
        scale_by_orthogonal(matrices, momentum, eps),
        scale_by_neurons(matrices, b2, eps),
    )
    is_matrix = lambda _, axes: axes is not None
    mask = lambda params: jax.tree.map(is_matrix, params, matrices(params))
    return optax.masked(inner, mask)


def scale_by_orthogonal(
    matrices: Matrices, momentum: float, eps: float
) -> optax.GradientTransformation:
    """Muon's direction (Jordan 2024): optax's, with `matrices` as dimension numbers."""

    def spec(params: Params) -> Any:
        numbers = lambda axes: (
            None if axes is None else contrib.MuonDimensionNumbers(*axes)
        )
        return map_matrices(numbers, matrices(params))

    return contrib.scale_by_muon(beta=momentum, eps=eps, weight_dimension_numbers=spec)


def scale_by_neurons(
    matrices: Matrices, b2: float, eps: float
) -> optax.GradientTransformation:
    """u -> c u_ij / sqrt(nu_j), nu_j an average of mean_i u_ij^2 over steps.

    i are inputs, j outputs; c gives each matrix the norm that it had. A factor that all
    neurons share drops out, and with it the correction of the average's bias.
    """

    def init(params: Params) -> NeuronState:
        def zeros(p, axes):
            shape = (1 if a in axes[0] else n for a, n in enumerate(p.shape))
            return jnp.zeros(tuple(shape), wide(p.dtype))

        return NeuronState(jax.tree.map(zeros, params, matrices(params)))

    def update(updates, state, params=None):
        def mean_square(u, nu, axes):
            square = jnp.square(u.astype(nu.dtype)).mean(axes[0], keepdims=True)
            return b2 * nu + (1 - b2) * square

        def normalise(u, nu, axes):
            both = (*axes[0], *axes[1])
            norm = lambda x: jnp.sqrt(jnp.square(x).sum(both, keepdims=True))
            x = u.astype(nu.dtype)
            y = x / (jnp.sqrt(nu) + eps)
            return (y * (norm(x) / (norm(y) + eps))).astype(u.dtype)

        tree = matrices(updates)
        nu = jax.tree.map(mean_square, updates, state.nu, tree)
        return jax.tree.map(normalise, updates, nu, tree), NeuronState(nu)

    return optax.GradientTransformation(init, update)
