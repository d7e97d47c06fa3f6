"""The learned optimizer for anybody's loop, and for a run's config.

tx = optax.chain(optax.clip_by_global_norm(1.0), uets_jax.optim.learned(0.02))
updates, state = tx.update(grads, state, params, value=loss)
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from uets_jax.config import OptimConfig
from uets_jax.optim import rules
from uets_jax.optim.gate import GateSettings, GateTheta, check_theta
from uets_jax.optim.gated import scale_by_gated_rules
from uets_jax.optim.leaves import Tree
from uets_jax.optim.stored import load_theta
from uets_jax.types import Params

Weights = GateTheta | str | Path | None


class LearnedState(NamedTuple):
    """count: steps, for a learning rate that is a schedule; rule: of the gated rule."""

    count: Int[Array, ""]
    rule: Any


def learned(
    learning_rate: Any,
    weight_decay: Any = 0.1,
    weights: Weights = "default",
    *,
    steps: Any = None,
    matrices: Tree | None = None,
    decayed: Tree | None = None,
    layer_axis: Tree | None = None,
    roles: Tree | None = None,
    settings: GateSettings | None = None,
    every: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The gated mixture of update rules, as a whole optimizer.

    Give `update` the loss as `value`; `learning_rate`, `weight_decay`, `progress` and
    `steps` as extra arguments win over those here. One rate serves matrices and the
    rest: updates have the RMS of Adam's. Clip the gradient's global norm before.

    Args:
      learning_rate: a number, traced or not, or a schedule: step -> number.
      weight_decay: decoupled, times the rate, on leaves with two axes or more.
      weights: "default": shipped; None or "": no gate, Muon with AdamW; the path of an
        .npz that `save_theta` wrote; or a theta.
      steps: of the run; None: not known.
      matrices: params -> a tree of (input axes, output axes), None where Muon does not
        apply. None: 2-D leaves, unless a word of their path is such as embed, head,
        table, vocab or lm_head. Give it for kernels with more axes.
      decayed, layer_axis, roles: see `scale_by_gated_rules`.
      settings: of a theta or without weights; files bring their own.
      every: steps between two decisions of the gate; None: as the settings have it.

    Raises:
      UserError: for a file that can't be read, or weights and settings that don't fit.
    """
    changes = {} if every is None else {"every": every}
    theta, settings = resolved(weights, settings, **changes)
    rule = scale_by_gated_rules(
        theta,
        matrices=matrices,
        decayed=decayed,
        layer_axis=layer_axis,
        roles=roles,
        weight_decay=weight_decay,
        settings=settings,
    )

    def init(params: Params) -> LearnedState:
        return LearnedState(jnp.zeros((), jnp.int32), rule.init(params))

    def update(updates, state, params=None, **extra):
        own = learning_rate(state.count) if callable(learning_rate) else learning_rate
        extra = {"learning_rate": own, "steps": steps, **extra}
        updates, after = rule.update(updates, state.rule, params, **extra)
        updates = _scaled(updates, extra["learning_rate"])
        return updates, LearnedState(optax.safe_increment(state.count), after)

    return optax.GradientTransformationExtraArgs(init, update)


def learned_rule(
    config: OptimConfig,
    matrices: Tree,
    decayed: Tree,
    layer_axis: Tree | None = None,
    roles: Tree | None = None,
    branch: Callable[..., Any] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """`rules.rule` for the name "learned": clip -> gated rules -> learning rate.

    Raises:
      UserError: for `config.weights` that can't be read.
    """
    same = ("b1", "b2", "eps", "momentum", "adam_ratio")
    changes = {name: getattr(config, name) for name in same}
    theta, settings = resolved(config.weights, every=config.gate_every, **changes)
    gated = scale_by_gated_rules(
        theta,
        matrices=matrices,
        decayed=decayed,
        layer_axis=layer_axis,
        roles=roles,
        weight_decay=config.weight_decay,
        settings=settings,
        **({} if branch is None else {"branch": branch}),
    )
    return optax.chain(rules.clip(config), gated, minus_rate(config.learning_rate))


def resolved(
    weights: Weights, settings: GateSettings | None = None, **changes: Any
) -> tuple[GateTheta | None, GateSettings]:
    """Theta and settings that `weights` stands for; None: the nominal rule."""
    theta, own = weights, settings or GateSettings()
    if isinstance(weights, str | Path) and str(weights):
        found = load_theta(None if weights == "default" else weights)
        theta, own = found.theta, found.settings
    theta = None if isinstance(theta, str) else theta
    own = dataclasses.replace(own, **changes)
    if theta is not None:
        check_theta(theta, own, "weights")
    return theta, own


def minus_rate(learning_rate: float) -> optax.GradientTransformationExtraArgs:
    """u -> -rate u; the extra argument `learning_rate` wins over the constant."""

    def update(updates, state, params=None, **extra):
        return _scaled(updates, extra.get("learning_rate", learning_rate)), state

    return optax.GradientTransformationExtraArgs(
        lambda params: optax.EmptyState(), update
    )


def _scaled(updates: Params, rate: Any) -> Params:
    rate = jnp.asarray(rate)
    return jax.tree.map(lambda u: -rate.astype(u.dtype) * u, updates)
