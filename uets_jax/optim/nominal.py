"""The rule that a gate departs from: Muon with AdamW, or AdamW, without a gate."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from uets_jax.config import OptimConfig
from uets_jax.optim.gate import GateSettings
from uets_jax.optim.leaves import Tree, decayed_of, following, matrices_of
from uets_jax.optim.rules import direction


def nominal_rule(
    settings: GateSettings,
    matrices: Tree | None = None,
    decayed: Tree | None = None,
    weight_decay: Any = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """`rules.rule` less clipping and learning rate; arguments as of the gated rule."""
    config = OptimConfig(
        name="muon" if settings.nominal == "muon" else "adamw",
        b1=settings.b1,
        b2=settings.b2,
        eps=settings.eps,
        momentum=settings.momentum,
        adam_ratio=settings.adam_ratio,
        rest_ratio=settings.rest_ratio,
    )
    return optax.chain(
        direction(config, following(matrices or matrices_of)),
        add_decay(weight_decay, following(decayed or decayed_of), settings.cautious),
    )


def add_decay(
    weight_decay: Any, decayed: Tree, cautious: bool
) -> optax.GradientTransformationExtraArgs:
    """u -> u + decay p where `decayed(params)`; the extra argument `weight_decay` wins.

    With `cautious` not in entries where u and p have opposite signs.
    """

    def update(updates, state, params=None, **extra):
        decay = jnp.asarray(extra.get("weight_decay", weight_decay))
        if params is None:
            raise ValueError("add_decay: update needs `params`")

        def add(u, p, decays):
            pull = pulled(u, p, decay.astype(u.dtype), cautious)
            return u + pull if decays else u

        return jax.tree.map(add, updates, params, decayed(params)), state

    return optax.GradientTransformationExtraArgs(
        lambda params: optax.EmptyState(), update
    )


def pulled(
    u: Float[Array, "..."], p: Float[Array, "..."], decay: Array, cautious: bool
) -> Float[Array, "..."]:
    """decay p; cautious: 0 in entries where it goes against the update u, u p < 0.

    Source: Chen et al. 2025, arXiv:2510.12402.
    """
    return jnp.where(u * p >= 0, decay * p, 0) if cautious else decay * p
