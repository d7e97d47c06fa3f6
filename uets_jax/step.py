"""The heart: one pure step from a candidate pool to the next state."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from uets_jax.component import Component, Selection
from uets_jax.measure.scopes import category
from uets_jax.microbatch import value_and_grad
from uets_jax.types import IGNORED, Batch, Hypers, Metrics, Moment, Params, TrainState


@dataclasses.dataclass(frozen=True)
class Program:
    """The functions of a run. Hashable; equal programs share an executable.

    init:     key -> params
    forward:  (params, batch) -> (token_losses [B, L] in nats, Stats); a noisy one
              takes a key as third argument
    logits:   (params, tokens [B, L]) -> [B, L, V]
    inspect:  (params, batch, gates=None) -> (token_losses, Stats, Taps); of the model,
              whatever `forward` is
    tx:       the update rule; it is given `value`, `learning_rate`, `weight_decay`,
              `steps`
    schedule: (hypers, step) -> learning rate
    noisy:    the training forward is given a key (dropout).
    cut:      [B, L] -> [n B, L / n]: the same tokens in shorter rows.
    averaged: (params, opt) -> params: what is evaluated, where that is not what is
              trained on; see `evaluated`.
    held:     updates -> updates: 0 for the parameters that are frozen.
    reports:  opt -> metrics: what the update rule has to say of its last step.

    An empty slot is left out of the compiled step.

    select:   chooses and weighs the data, and learns from it
    rewarm:   (state, updates, step) -> (updates, state): fresh entries begin slowly
    guard:    (state, loss, grad_norm, update_norm) -> (whether to update, state)
    """

    init: Callable[[Key[Array, ""]], Params]
    forward: Callable[..., tuple[Any, Any]]
    logits: Callable[..., Array]
    tx: optax.GradientTransformationExtraArgs
    schedule: Callable[[Hypers, Array], Array]
    select: Selection | None = None
    rewarm: Component | None = None
    guard: Component | None = None
    inspect: Callable[..., tuple[Any, Any, Any]] | None = None
    microbatches: int = 1
    noisy: bool = False
    cut: Callable[[Batch], Batch] | None = None
    averaged: Callable[[Params, Any], Params] | None = None
    held: Callable[[Params], Params] | None = None
    reports: Callable[[Any], Metrics] | None = None


SLOTS = ("select", "rewarm", "guard")


def train_step(
    program: Program, state: TrainState, pool: Batch, assets: Any = None
) -> tuple[TrainState, Metrics]:
    """One pure update from a candidate pool [C, L] to the next state.

    choose -> gradient -> update -> observe -> guard. Metrics are a flat dict of
    scalars: `loss` (nats per token), `grad_norm` (before clipping), `learning_rate`,
    `targets` (tokens that carried loss), those of the selection and what the update
    rule reports; with experts `router_load_max`, `router_dropped` and
    `router_penalty`; with a guard `update_norm` and `skipped`, 1 where only the step
    number and the guard's own state have changed; `taken/NAME`, 1 where the update rule
    took a counted branch.
    """
    batch, weights, parts, seen = pool, None, dict(state.parts), {}
    if program.select is not None:
        with category("scoring"):
            batch, weights, seen, parts["select"] = program.select.choose(
                parts["select"], pool, _moment(state, assets, 1)
            )
    (loss, aux, routed), grads = _gradient(program, state, batch, weights)

    rate = program.schedule(state.hypers, state.step)
    with category("optimizer"):
        updates, opt = program.tx.update(
            grads,
            state.opt,
            state.params,
            value=loss,
            learning_rate=rate,
            weight_decay=state.hypers.weight_decay,
            steps=state.hypers.steps,
        )
        if program.rewarm is not None:
            updates, parts["rewarm"] = program.rewarm.apply(
                parts["rewarm"], updates, state.step
            )
        if program.held is not None:
            updates = program.held(updates)
        params = optax.apply_updates(state.params, updates)

    metrics = {
        "loss": loss,
        "grad_norm": optax.tree.norm(grads),
        "learning_rate": rate,
        "targets": (batch.targets != IGNORED).sum(),
        **routed,
        **seen,
        **(program.reports(opt) if program.reports is not None else {}),
        **taken(opt),
    }
    if program.select is not None:
        with category("statistics"):
            seen, parts["select"] = program.select.observe(
                parts["select"], batch, *aux, _moment(state, assets, 2)
            )
        metrics |= seen
    new = TrainState(state.step + 1, state.key, params, opt, state.hypers, parts)
    if program.guard is None:
        return new, metrics
    with category("optimizer"):
        return admit(program.guard, state, new, updates, metrics)


def taken(opt: Any) -> Metrics:
    """`taken/NAME` of the counted branches of an update rule: of a state's field
    `taken`, a dict of int32 scalars.
    """
    has = lambda x: isinstance(getattr(x, "taken", None), dict)
    states = [x for x in jax.tree.leaves(opt, is_leaf=has) if has(x)]
    return {f"taken/{k}": v for state in states for k, v in state.taken.items()}


def evaluated(program: Program, state: TrainState) -> Params:
    """The parameters that evaluation, generation and the final model use."""
    if program.averaged is None:
        return state.params
    return jax.jit(program.averaged)(state.params, state.opt)


def _moment(state: TrainState, assets: Any, part: int) -> Moment:
    """What the selection sees; its two parts have keys of their own."""
    progress = jnp.minimum(state.step / jnp.maximum(state.hypers.steps, 1.0), 1.0)
    return Moment(state.params, assets, progress, step_key(state, part))


def step_key(state: TrainState, part: int) -> Key[Array, ""]:
    """The key of a part of this step: 0 dropout, 1 choose, 2 observe."""
    return jax.random.fold_in(jax.random.fold_in(state.key, state.step), part)


def _gradient(
    program: Program, state: TrainState, batch: Batch, weights: Array | None
) -> Any:
    """((loss, by-products of the batch's rows or None, routed), gradients)."""
    by_products, rows = program.select is not None, batch
    loss_and_grad = value_and_grad(program.forward, program.microbatches, by_products)
    if program.cut is not None:
        rows = program.cut(batch)
        pieces = rows.ids.shape[0] // batch.ids.shape[0]
        weights = None if weights is None else jnp.repeat(weights, pieces)
    noise = (step_key(state, 0),) if program.noisy else ()
    (loss, aux, routed), grads = loss_and_grad(state.params, rows, weights, *noise)
    if program.cut is not None:
        whole = lambda x: x.reshape(*batch.targets.shape, *x.shape[2:])
        aux = jax.tree.map(whole, aux)
    return (loss, aux, routed), grads


def admit(
    guard: Component, old: TrainState, new: TrainState, updates: Any, metrics: Metrics
) -> tuple[TrainState, Metrics]:
    """The new state if the guard lets it pass, else the old one, a step further."""
    metrics = {**metrics, "update_norm": optax.tree.norm(updates)}
    seen = (metrics[name] for name in ("loss", "grad_norm", "update_norm"))
    good, after = guard.apply(old.parts["guard"], *seen)
    changed = lambda state: (state.params, state.opt, state.parts)
    choose_new = lambda n, o: jnp.where(good, n, o)
    params, opt, parts = jax.tree.map(choose_new, changed(new), changed(old))
    kept = new._replace(params=params, opt=opt, parts={**parts, "guard": after})
    return kept, {**metrics, "skipped": (~good).astype(jnp.int32)}


def init_state(
    program: Program,
    hypers: Hypers,
    seed: Array | int,
    start: Callable[[Params], Params] | None = None,
) -> TrainState:
    """The state before the first step; pure, so it can be jitted or `eval_shape`d.

    Args:
      start: from fresh parameters to those that the run begins with.
    """
    root, key = jax.random.split(jax.random.key(seed))
    params = program.init(key)
    params = params if start is None else start(params)
    filled = {s: getattr(program, s) for s in SLOTS}
    parts = {s: part.init(params) for s, part in filled.items() if part is not None}
    step = jnp.zeros((), jnp.int32)
    return TrainState(step, root, params, program.tx.init(params), hypers, parts)
