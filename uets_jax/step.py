"""The heart: one pure step from a candidate pool to the next state."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from uets_jax.component import Component
from uets_jax.measure.scopes import category
from uets_jax.microbatch import value_and_grad
from uets_jax.types import IGNORED, Batch, Hypers, Metrics, Params, TrainState


@dataclasses.dataclass(frozen=True)
class Program:
    """The functions of a run. Hashable; equal programs share an executable.

    init:     key -> params
    forward:  (params, batch) -> (token_losses [B, L] in nats, Stats)
    logits:   (params, tokens [B, L]) -> [B, L, V]
    tx:       the update rule; it is given `value`, `learning_rate`, `weight_decay`
    schedule: (hypers, step) -> learning rate

    The slots choose and weigh the data; an empty one is left out of the compiled step.

    offer:   (state, pool, params, assets, key) -> (scores [C], state)
    draw:    (state, scores, key) -> (rows [B] of the pool, state)
    weigh:   (state, batch, assets) -> (weights [B], 1 on average, state)
    observe: (state, batch, token_losses, stats) -> (metrics, state)
    guard:   (state, loss, grad_norm, update_norm) -> (whether to update, state)
    """

    init: Callable[[Key[Array, ""]], Params]
    forward: Callable[[Params, Batch], tuple[Any, Any]]
    logits: Callable[[Params, Array], Array]
    tx: optax.GradientTransformationExtraArgs
    schedule: Callable[[Hypers, Array], Array]
    offer: Component | None = None
    draw: Component | None = None
    weigh: Component | None = None
    observe: Component | None = None
    guard: Component | None = None
    microbatches: int = 1


SLOTS = ("offer", "draw", "weigh", "observe", "guard")


def train_step(
    program: Program, state: TrainState, pool: Batch, assets: Any = None
) -> tuple[TrainState, Metrics]:
    """One pure update from a candidate pool [C, L] to the next state.

    offer -> draw -> weigh -> gradient -> update -> observe -> guard. Metrics are a flat
    dict of scalars: `loss` (nats per token), `grad_norm` (before clipping),
    `learning_rate`, `targets` (tokens that carried loss); with a guard `update_norm`
    and `skipped`, 1 where only the step number and the guard's own state have changed.
    """
    with category("scoring"):
        batch, weights, parts = choose(program, state, pool, assets)
    by_products = program.observe is not None
    loss_and_grad = value_and_grad(program.forward, program.microbatches, by_products)
    (loss, aux), grads = loss_and_grad(state.params, batch, weights)

    rate = program.schedule(state.hypers, state.step)
    with category("optimizer"):
        updates, opt = program.tx.update(
            grads,
            state.opt,
            state.params,
            value=loss,
            learning_rate=rate,
            weight_decay=state.hypers.weight_decay,
        )
        params = optax.apply_updates(state.params, updates)

    metrics = {
        "loss": loss,
        "grad_norm": optax.tree.norm(grads),
        "learning_rate": rate,
        "targets": (batch.targets != IGNORED).sum(),
    }
    if program.observe is not None:
        with category("statistics"):
            seen, after = program.observe.apply(parts["observe"], batch, *aux)
        metrics, parts = {**metrics, **seen}, {**parts, "observe": after}
    new = TrainState(state.step + 1, state.key, params, opt, state.hypers, parts)
    if program.guard is None:
        return new, metrics
    with category("optimizer"):
        return admit(program.guard, state, new, updates, metrics)


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


def choose(
    program: Program, state: TrainState, pool: Batch, assets: Any
) -> tuple[Batch, Array | None, dict[str, Any]]:
    """The rows that are trained on, their weights, and the parts' new states."""
    parts, batch, weights, scores = dict(state.parts), pool, None, None
    if program.offer is not None or program.draw is not None:
        offer_key, draw_key = jax.random.split(
            jax.random.fold_in(state.key, state.step)
        )
        if program.offer is not None:
            scores, parts["offer"] = program.offer.apply(
                parts["offer"], pool, state.params, assets, offer_key
            )
        if program.draw is not None:
            rows, parts["draw"] = program.draw.apply(parts["draw"], scores, draw_key)
            batch = jax.tree.map(lambda x: x[rows], pool)
    if program.weigh is not None:
        weights, parts["weigh"] = program.weigh.apply(parts["weigh"], batch, assets)
    return batch, weights, parts


def init_state(program: Program, hypers: Hypers, seed: Array | int) -> TrainState:
    """The state before the first step; pure, so it can be jitted or `eval_shape`d."""
    root, key = jax.random.split(jax.random.key(seed))
    params = program.init(key)
    filled = {s: getattr(program, s) for s in SLOTS}
    parts = {s: part.init(params) for s, part in filled.items() if part is not None}
    step = jnp.zeros((), jnp.int32)
    return TrainState(step, root, params, program.tx.init(params), hypers, parts)
