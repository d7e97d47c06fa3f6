"""Update rules by name, as optax transformations with traced rate and decay."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from uets_jax.config import OptimConfig
from uets_jax.optim.matrices import Matrices, is_axes, map_matrices, sizes
from uets_jax.optim.normuon import scale_by_normuon, scale_by_orthogonal
from uets_jax.optim.schedule_free import schedule_free
from uets_jax.optim.soap import Branch, plain, scale_by_soap
from uets_jax.types import Params

Mask = Callable[[Params], Any]


def rule(
    config: OptimConfig, matrices: Matrices, decayed: Mask, branch: Branch = plain
) -> optax.GradientTransformationExtraArgs:
    """clip -> direction (`config.name`) -> decoupled decay -> learning rate.

    With schedule-free the averaging comes last; see `schedule_free`.

    `update` takes `learning_rate` and `weight_decay` as extra arguments, traced;
    without them the config's constants hold.

    Args:
      config: names the rule and its static settings.
      matrices: marks the matrices that Muon, NorMuon and SOAP treat as such.
      decayed: True for the leaves that weight decay applies to.
      branch: of SOAP, see there.
    """
    rate, decay = config.learning_rate, config.weight_decay
    average = schedule_free(rate, config.b1) if config.name == "schedule_free" else None
    return optax.chain(
        clip(config),
        direction(config, matrices, branch),
        decay_and_scale(rate, decay, decayed, config.cautious),
        *([average] if average else []),
    )


def clip(config: OptimConfig) -> optax.GradientTransformation:
    """By the global norm, if the config says so."""
    return optax.clip_by_global_norm(config.clip) if config.clip else optax.identity()


def direction(
    config: OptimConfig, matrices: Matrices, branch: Branch = plain
) -> optax.GradientTransformation:
    """What a rule does to a gradient, before decay and learning rate."""
    directions = {
        "adamw": _adam,
        "lion": _lion,
        "sgd": lambda c: optax.trace(decay=c.momentum),
        "rmsprop": _rms,
        "schedule_free": _rms,
        "soap": lambda c: scale_by_soap(
            matrices, c.b1, c.b2, c.eps, c.soap_every, c.soap_max_dim, branch
        ),
        "muon": lambda c: _orthogonal(c, matrices),
        "normuon": lambda c: _orthogonal(c, matrices),
    }
    found = directions[config.name](config)
    ratio = 1.0 if config.name in ("muon", "normuon") else config.rest_ratio
    return found if ratio == 1 else optax.chain(found, scale_rest(matrices, ratio))


def scale_rest(matrices: Matrices, ratio: float) -> optax.GradientTransformation:
    """Times `ratio` what is no matrix inside blocks: embeddings, head, norms."""

    def update(updates, state, params=None):
        scale = lambda axes, u: u * ratio if axes is None else u
        tree = matrices(updates)
        return jax.tree.map(scale, tree, updates, is_leaf=is_axes), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _adam(c: OptimConfig) -> optax.GradientTransformation:
    return optax.scale_by_adam(b1=c.b1, b2=c.b2, eps=c.eps)


def _lion(c: OptimConfig) -> optax.GradientTransformation:
    return optax.scale_by_lion(b1=c.b1, b2=c.b2)


def _rms(c: OptimConfig) -> optax.GradientTransformation:
    """Adam without momentum."""
    return optax.scale_by_rms(
        decay=c.b2, eps=c.eps, eps_in_sqrt=False, bias_correction=True
    )


def _orthogonal(c: OptimConfig, matrices: Matrices) -> optax.GradientTransformation:
    """Muon or NorMuon on the matrices inside blocks, Adam on all other leaves."""
    if c.name == "normuon":
        orthogonal = scale_by_normuon(matrices, c.momentum, c.b2, c.eps)
    else:
        orthogonal = scale_by_orthogonal(matrices, c.momentum, c.eps)

    def label(params: Params) -> Any:
        kind = lambda axes: "adam" if axes is None else "muon"
        return map_matrices(kind, matrices(params))

    return optax.partition(
        {
            "muon": optax.chain(orthogonal, scale_by_matrix_size(matrices)),
            "adam": optax.chain(_adam(c), optax.scale(c.adam_ratio)),
        },
        label,
    )


def scale_by_matrix_size(matrices: Matrices) -> optax.GradientTransformation:
    """Times 0.2 sqrt(max(inputs, outputs)): an orthogonal matrix gets RMS 0.2.

    That is the RMS of Adam's updates, so that one learning rate and one weight decay
    serve both (Liu et al. 2025, "Muon is scalable for LLM training").
    """

    def update(updates, state, params=None):
        def scale(axes, u):
            if axes is None:
                return u
            return u * (0.2 * max(sizes(u.shape, axes)) ** 0.5)

        tree = matrices(updates)
        return jax.tree.map(scale, tree, updates, is_leaf=is_axes), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def decay_and_scale(
    learning_rate: float, weight_decay: float, decayed: Mask, cautious: bool = False
) -> optax.GradientTransformationExtraArgs:
    """u -> -rate (u + decay p), the decay only where `decayed(params)` is True.

    Cautious: and only where u p >= 0, so that decay never opposes the step (Chen et al.
    2025, arXiv:2510.12402).
    """

    def update(updates, state, params=None, **extra):
        rate = jnp.asarray(extra.get("learning_rate", learning_rate))
        decay = jnp.asarray(extra.get("weight_decay", weight_decay))
        if params is None:
            raise ValueError("decay_and_scale: update needs `params`")

        def scale(u, p, decays):
            if decays:
                pull = jnp.where(u * p >= 0, p, 0) if cautious else p
                u = u + decay.astype(u.dtype) * pull
            return -rate.astype(u.dtype) * u

        return jax.tree.map(scale, updates, params, decayed(params)), state

    return optax.GradientTransformationExtraArgs(
        lambda params: optax.EmptyState(), update
    )
