"""The learned optimizer for anybody's loop, and for a run's config.

tx = optax.chain(optax.clip_by_global_norm(1.0), uets_jax.optim.learned(0.02))
updates, state = tx.update(grads, state, params, value=loss)
"""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from uets_jax.config import OptimConfig
from uets_jax.errors import UserError
from uets_jax.optim import leaves, rules
from uets_jax.optim.gate import GateSettings, GateTheta
from uets_jax.optim.gated import scale_by_gated_rules
from uets_jax.optim.leaves import Tree
from uets_jax.optim.stored import Weights, resolved
from uets_jax.types import Params


class LearnedState(NamedTuple):
    """count: steps, for a learning rate that is a schedule; rule: of the gated rule."""

    count: Int[Array, ""]
    rule: Any


def learned(
    learning_rate: Any = 0.02,
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
    between: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The gated mixture of update rules, as a whole optimizer.

    Give `update` the loss as `value`; `learning_rate`, `weight_decay`, `progress` and
    `steps` as extra arguments win over those here. One rate serves all: the update
    of a hidden matrix has RMS 0.2, all else has `adam_ratio` (2) times Adam's update.
    Clip the gradient's global norm before. With weights a step that is not finite
    changes nothing, and the nominal rule alone acts while the loss has risen far (if it
    is given); without weights it is as plain as Muon. `momentum` and the like are the
    nominal rule's: the gate multiplies 1 - b.

    Args:
      learning_rate: a number, traced or not, or a schedule: step -> number.
      weight_decay: decoupled, times the rate, on leaves with two axes or more.
      weights: "default": shipped; None or "": no gate, Muon with AdamW; the path of an
        .npz that `save_theta` wrote; or a theta.
      steps: of the run; None: not known.
      matrices: params -> a tree of (input axes, output axes), None where Muon does not
        apply. None: 2-D leaves, unless their name, or that of what holds them, has a
        word such as embedding, wte or vocab or ends in scale, bias or norm, or a name
        on their path ends in head; what was read says `leaves.describe(params)`. Give
        it for stacks of layers, convolutions and other kernels with more axes: they
        follow Adam otherwise, at `adam_ratio` times the rate like embeddings, and a
        warning says so.
      decayed, layer_axis, roles: see `scale_by_gated_rules`.
      settings: of a theta or without weights; files bring their own.
      every: steps between two decisions of the gate; None: as the settings have it.
      between: "held" or "nominal", see `GateSettings`; likewise.

    With `optax.inject_hyperparams` name the arguments that are no arrays:
    `static_args=("weights", "matrices", "decayed", "layer_axis", "roles", "settings",
    "every", "between")`.

    Raises:
      UserError: for a file that can't be read, or weights and settings that don't fit.
    """
    given = {"every": every, "between": between}
    changes = {name: value for name, value in given.items() if value is not None}
    numbers = {"learning_rate": learning_rate, "weight_decay": weight_decay}
    for name, value in numbers.items():
        if value is None or isinstance(value, str):
            raise UserError(f"{name}: give a number, not {value!r}")
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
        if matrices is None:
            _warn(params)
        return LearnedState(jnp.zeros((), jnp.int32), rule.init(params))

    def update(updates, state, params=None, **extra):
        own = learning_rate(state.count) if callable(learning_rate) else learning_rate
        extra = {"learning_rate": own, "steps": steps, **extra}
        updates, after = rule.update(updates, state.rule, params, **extra)
        updates = _scaled(updates, extra["learning_rate"])
        return updates, LearnedState(optax.safe_increment(state.count), after)

    return optax.GradientTransformationExtraArgs(init, update)


def _warn(params: Params) -> None:
    names = leaves.overlooked(params)
    if names:
        warnings.warn(
            f"learned: {names[0]} and {len(names) - 1} more have three axes or more "
            "and follow Adam at `adam_ratio` times the rate: give matrices=, a "
            "function from parameters to (input axes, output axes)",
            stacklevel=4,
        )


def learned_rule(
    config: OptimConfig,
    matrices: Tree,
    decayed: Tree,
    layer_axis: Tree | None = None,
    roles: Tree | None = None,
    branch: Callable[..., Any] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """`rules.rule` for the name "learned": clip -> gated rules -> learning rate.

    What the config says other than by default wins over the settings of a file.

    Raises:
      UserError: for `config.weights` that can't be read.
    """
    theta, settings = _of_config(config)
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


def settings_of(config: OptimConfig) -> GateSettings:
    """The settings of a run's gate: its file's, changed by what the config says."""
    return _of_config(config)[1]


def _of_config(config: OptimConfig) -> tuple[GateTheta | None, GateSettings]:
    same = ("b1", "b2", "eps", "momentum", "adam_ratio", "cautious")
    plain = OptimConfig()
    given = {name: getattr(config, name) for name in same}
    changes = {k: v for k, v in given.items() if v != getattr(plain, k)}
    changes |= {"every": config.gate_every, "between": config.gate_between}
    theta, own = resolved(config.weights, **changes)
    if own.nominal == "adamw" and "adam_ratio" in changes:
        own = dataclasses.replace(own, rest_ratio=config.adam_ratio)
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
