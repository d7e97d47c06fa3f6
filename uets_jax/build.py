"""From a config to a program: the one place that knows every part."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import optax

from uets_jax.aql.make import Chosen, chosen, selection
from uets_jax.config import ExperimentConfig, ModelConfig, OptimConfig, decay_share
from uets_jax.curriculum.length import cut
from uets_jax.errors import UserError, nearest
from uets_jax.measure.scopes import branch
from uets_jax.models.axes import (
    hidden_matrix,
    is_matrix,
    layer_axis,
    map_axes,
    role,
)
from uets_jax.models.frozen import held
from uets_jax.models.transformer import make_model
from uets_jax.optim import average, schedule_free
from uets_jax.optim.gated import gate_metrics
from uets_jax.optim.guard import guard
from uets_jax.optim.optimizer import learned_rule
from uets_jax.optim.rewarm import rewarm
from uets_jax.optim.rules import rule
from uets_jax.optim.schedules import schedule
from uets_jax.step import SLOTS, Program, init_state
from uets_jax.types import Hypers, Params, TrainState

FUNCTIONS = ("init", "forward", "logits", "inspect", "tx", "schedule", "averaged")
OVERRIDES = (*FUNCTIONS, *SLOTS)


def build(
    config: ExperimentConfig, overrides: Mapping[str, Any] | None = None
) -> Program:
    """The program of a run; cached, so configs that differ only in traced values share.

    Args:
      config: `model.vocab` must be set (a run takes it from its tokenizer).
      overrides: the user's own fields of `Program`: functions, a
        `Component`, an optax transformation.

    Raises:
      UserError: for an override that no program has, or an unknown vocabulary.
    """
    for name in overrides or {}:
        if name not in OVERRIDES:
            raise UserError(f"overrides: {name!r}: {nearest(name, OVERRIDES)}")
    if not config.model.vocab:
        raise UserError("model.vocab: 0: set it to the tokenizer's number of tokens")
    own = frozenset((overrides or {}).items())
    train = config.train
    guarded = None if train.on_bad_step == "abort" and not train.spike else train.spike
    optim, how = _static(config), chosen(config)
    warm = None if config.growth.method == "none" else config.growth.rewarm
    slots = (how, guarded, warm or None)
    return _build(config.model, optim, slots, train.microbatches, own)


@functools.lru_cache(maxsize=64)
def with_length(program: Program, length: int, full: int) -> Program:
    """The program that trains on rows cut to `length`; itself at the full length."""
    if length == full:
        return program
    return dataclasses.replace(program, cut=functools.partial(cut, length=length))


def _static(config: ExperimentConfig) -> OptimConfig:
    """`optim` less what is traced (see `hypers`), with the decay that holds."""
    changes: dict[str, Any] = {"learning_rate": 0.0, "weight_decay": 0.0, "warmup": 0}
    changes["decay"] = decay_share(config)
    return OptimConfig(**{**vars(config.optim), **changes})


@functools.lru_cache(maxsize=64)
def _build(
    model: ModelConfig,
    optim: OptimConfig,
    slots: tuple[Chosen | None, float | None, int | None],
    microbatches: int,
    overrides: frozenset[tuple[str, Any]],
) -> Program:
    parts = make_model(model)
    how, guarded, warm = slots
    fields = {
        "init": parts.init,
        "forward": parts.forward,
        "logits": parts.logits,
        "inspect": parts.inspect,
        "tx": _rule(optim),
        "schedule": schedule(optim.schedule, optim.decay, optim.floor),
        "select": how and selection(how, model, parts),
        "rewarm": warm and rewarm(warm, _trained(model)),
        "guard": None if guarded is None else guard(guarded),
        "reports": gate_metrics,
        "held": functools.partial(held, model) if model.frozen else None,
    }
    own = dict(overrides)
    if optim.name == "schedule_free" and "tx" not in own:
        fields["averaged"] = schedule_free.averaged(optim.b1)
    if optim.average:
        fields["averaged"] = average.averaged(optim.average)
    fields |= own
    if optim.average:
        fields["tx"] = optax.chain(fields["tx"], average.average(optim.average))
    if (trained := _trained(model)) is not None:  # the rest: no state, a gradient of 0
        fields["tx"] = optax.masked(fields["tx"], trained)
    fields["tx"] = optax.with_extra_args_support(fields["tx"])
    noisy = getattr(model, "dropout", 0) > 0
    return Program(**fields, microbatches=microbatches, noisy=noisy)


def _rule(optim: OptimConfig) -> optax.GradientTransformationExtraArgs:
    """The update rule, told what the axes of this house's models mean."""
    of = lambda fn: functools.partial(map_axes, fn)
    known = {"matrices": of(hidden_matrix), "decayed": of(is_matrix)}
    if optim.name != "learned":
        return rule(optim, **known, branch=branch)
    known |= {"layer_axis": of(layer_axis), "roles": of(role)}
    return learned_rule(optim, **known, branch=branch)


def _trained(model: ModelConfig) -> Callable[[Params], Any] | None:
    """params -> whether each leaf is trained; None where all are."""
    still = [("counted",)] if model.backoff_order else []
    still += [] if model.memory_trained else [("bucket",)]
    return functools.partial(map_axes, lambda a: a[:1] not in still) if still else None


def hypers(config: ExperimentConfig) -> Hypers:
    """The traced values of a config."""
    o = config.optim
    values = (o.learning_rate, o.weight_decay, o.warmup, config.train.steps)
    return Hypers(*(jnp.asarray(v, jnp.float32) for v in values))


def initial_state(config: ExperimentConfig, program: Program) -> TrainState:
    """The state that a run starts from, on the default device."""
    return init_state(program, hypers(config), config.train.seed)
