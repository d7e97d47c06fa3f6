"""Update rules by name, as optax transformations with traced rate and decay."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from uets_jax.config import OptimConfig
from uets_jax.types import Params

# params -> a tree of (input axes, output axes) or None, one per leaf
Matrices = Callable[[Params], Any]
Mask = Callable[[Params], Any]


def rule(
    config: OptimConfig, matrices: Matrices, decayed: Mask
) -> optax.GradientTransformationExtraArgs:
    """clip -> direction (AdamW, Lion or Muon) -> decoupled decay -> learning rate.

    `update` takes `learning_rate` and `weight_decay` as extra arguments, traced;
    without them the config's constants hold.

    Args:
      config: names the rule and its static settings.
      matrices: marks the leaves that Muon orthogonalises and their axes.
      decayed: True for the leaves that weight decay applies to.
    """
    directions = {"adamw": _adam, "lion": _lion, "muon": lambda c: _muon(c, matrices)}
    clip = optax.clip_by_global_norm(config.clip) if config.clip else optax.identity()
    return optax.chain(
        clip,
        directions[config.name](config),
        decay_and_scale(config.learning_rate, config.weight_decay, decayed),
    )


def _adam(c: OptimConfig) -> optax.GradientTransformation:
    return optax.scale_by_adam(b1=c.b1, b2=c.b2, eps=c.eps)


def _lion(c: OptimConfig) -> optax.GradientTransformation:
    return optax.scale_by_lion(b1=c.b1, b2=c.b2)


def _muon(c: OptimConfig, matrices: Matrices) -> optax.GradientTransformation:
    """Muon on the matrices inside blocks, Adam on all other leaves (Jordan 2024)."""

    def spec(params: Params) -> Any:
        return jax.tree.map(_dimensions, matrices(params), is_leaf=_is_axes)

    def label(params: Params) -> Any:
        kind = lambda axes: "adam" if axes is None else "muon"
        return jax.tree.map(kind, matrices(params), is_leaf=_is_axes)

    orthogonal = contrib.scale_by_muon(
        beta=c.momentum, eps=c.eps, weight_dimension_numbers=spec
    )
    return optax.partition(
        {
            "muon": optax.chain(orthogonal, scale_by_matrix_size(matrices)),
            "adam": optax.chain(_adam(c), optax.scale(c.adam_ratio)),
        },
        label,
    )


def _is_axes(x: Any) -> bool:
    """A leaf of a `Matrices` tree: None or a pair of axis tuples."""
    if x is None:
        return True
    pair = isinstance(x, tuple) and len(x) == 2
    return pair and all(isinstance(axes, tuple) for axes in x)


def _dimensions(axes: Any) -> Any:
    return None if axes is None else contrib.MuonDimensionNumbers(*axes)


def scale_by_matrix_size(matrices: Matrices) -> optax.GradientTransformation:
    """Times 0.2 sqrt(max(inputs, outputs)): an orthogonal matrix gets RMS 0.2.

    That is the RMS of Adam's updates, so that one learning rate and one weight decay
    serve both (Liu et al. 2025, "Muon is scalable for LLM training").
    """

    def update(updates, state, params=None):
        def scale(axes, u):
            if axes is None:
                return u
            inputs, outputs = (_product(u.shape, a) for a in axes)
            return u * (0.2 * max(inputs, outputs) ** 0.5)

        tree = matrices(updates)
        return jax.tree.map(scale, tree, updates, is_leaf=_is_axes), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _product(shape: tuple[int, ...], axes: tuple[int, ...]) -> int:
    size = 1
    for axis in axes:
        size *= shape[axis]
    return size


def decay_and_scale(
    learning_rate: float, weight_decay: float, decayed: Mask
) -> optax.GradientTransformationExtraArgs:
    """u -> -rate (u + decay p), the decay only where `decayed(params)` is True."""

    def update(updates, state, params=None, **extra):
        rate = jnp.asarray(extra.get("learning_rate", learning_rate))
        decay = jnp.asarray(extra.get("weight_decay", weight_decay))
        if params is None:
            raise ValueError("decay_and_scale: update needs `params`")

        def scale(u, p, decays):
            u = u + decay.astype(u.dtype) * p if decays else u
            return -rate.astype(u.dtype) * u

        return jax.tree.map(scale, updates, params, decayed(params)), state

    return optax.GradientTransformationExtraArgs(
        lambda params: optax.EmptyState(), update
    )
