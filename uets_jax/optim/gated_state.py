"""The state of a gated rule: how it begins, what is read off it, what a step makes.

Every leaf that belongs to a parameter mirrors it, or has a row per layer, so that
`growth.operators.move_state` moves it; zeros are a sound beginning for a new layer.
"""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from uets_jax.optim import features
from uets_jax.optim.directions import Moments
from uets_jax.optim.gate import GateSettings
from uets_jax.optim.leaves import Leaf
from uets_jax.optim.mixture import Decision, Mixed, Rows
from uets_jax.optim.norms import mean_square, safe_sqrt
from uets_jax.types import Params

MEANS = ("step", "decay", "frozen")


class Watch(NamedTuple):
    """What is counted, and what metrics are read off.

    skipped:  steps whose update was not finite, and left out.
    reverted: steps for which the loss had risen so far that the nominal rule held.
    decided:  1 if the gate decided in the last step.
    mix:      means over parameters: weight of each rule by its name, multipliers
              `step` and `decay`, and `frozen`, the share whose update was left out.
    """

    skipped: Int[Array, ""]
    reverted: Int[Array, ""]
    decided: Int[Array, ""]
    mix: dict[str, Float[Array, ""]]


class GatedState(NamedTuple):
    """mu, nu, last (the update before, bfloat16) mirror the parameters; the others have
    a row per layer, or none of a leaf that isn't stacked.

    first, second: masses that debias mu and nu, see `directions`.
    start:   RMS of the first weights; 0: not yet known.
    hidden:  [L, 8], of the gate; zeros: fresh.
    held:    decisions that hold until the next ones; () if every step has its own.
    losses:  of `value`.
    peak:    the greatest learning rate so far.
    """

    count: Int[Array, ""]
    mu: Params
    nu: Params
    last: Params
    first: Any
    second: Any
    start: Any
    hidden: Any
    held: Any
    losses: features.LossState
    peak: Float[Array, ""]
    watch: Watch


def fresh(params: Params, leaves: list[Leaf], settings: GateSettings) -> GatedState:
    """Before the first step; reads shapes only."""
    like = lambda dtype: jax.tree.map(lambda p: jnp.zeros(p.shape, dtype), params)
    treedef = jax.tree.structure(params)

    def each(*shape: int) -> Any:
        rows = [jnp.zeros((leaf.layers, *shape)) for leaf in leaves]
        whole = [leaf.whole(r) for leaf, r in zip(leaves, rows, strict=True)]
        return jax.tree.unflatten(treedef, whole)

    zero, none = jnp.zeros((), jnp.int32), jnp.zeros(())
    held = each(settings.outputs) if settings.every > 1 else ()
    mix = {name: jnp.zeros(()) for name in (*settings.rules, *MEANS)}
    f32 = jnp.float32
    return GatedState(
        count=zero,
        mu=like(f32),
        nu=like(f32),
        last=like(jnp.bfloat16),
        first=each(),
        second=each(),
        start=each(),
        hidden=each(settings.hidden),
        held=held,
        losses=features.no_losses(),
        peak=none,
        watch=Watch(zero, zero, zero, mix),
    )


def known(
    state: GatedState,
    value: Any,
    progress: Any,
    steps: Any,
    rate: Any,
) -> tuple[GatedState, Float[Array, " 12"]]:
    """The state with loss and rate in it, and the features that all leaves share."""
    losses = None
    if value is not None:
        if jnp.shape(value) != ():
            raise ValueError(f"value: give a scalar loss, not {jnp.shape(value)}")
        losses = features.see_loss(state.losses, jnp.asarray(value))
        state = state._replace(losses=losses)
    if rate is not None:
        rate = jnp.asarray(rate, jnp.float32)
        peak = jnp.maximum(state.peak, rate)
        state = state._replace(peak=peak)
        rate = jnp.where(peak > 0, rate / jnp.where(peak > 0, peak, 1.0), 1.0)
    if progress is None and steps is not None:
        progress = jnp.clip(state.count / jnp.maximum(steps, 1.0), 0.0, 1.0)
    return state, features.shared(losses, progress, rate, state.count)


def all_rows(
    leaves: list[Leaf], updates: Any, params: Params, state: GatedState
) -> list[Rows]:
    """What `mixture.mixed` reads, for each leaf."""
    treedef = jax.tree.structure(params)
    trees = (updates, params, state.mu, state.nu, state.first, state.second)
    trees = (*trees, state.last, state.start)

    def one(leaf: Leaf, *parts: Array) -> Rows:
        g, p, mu, nu, first, second, last, start = map(leaf.rows, parts)
        known = jnp.where(start > 0, start, safe_sqrt(mean_square(p)))
        return Rows(g, p, Moments(mu, nu, first, second), last, known)

    flat = [treedef.flatten_up_to(tree) for tree in trees]
    return [one(*parts) for parts in zip(leaves, *flat, strict=True)]


def stacked(leaves: list[Leaf], state: GatedState, tree: Any) -> Float[Array, "n k"]:
    """The rows of all layers of all leaves, one after the other."""
    flat = jax.tree.structure(state.mu).flatten_up_to(tree)
    return jnp.concatenate([x.rows(y) for x, y in zip(leaves, flat, strict=True)])


def split(leaves: list[Leaf], x: Float[Array, "n k"]) -> list[Float[Array, "l k"]]:
    """The inverse: the rows of each leaf."""
    ends = list(itertools.accumulate(leaf.layers for leaf in leaves))
    return [x[e - leaf.layers : e] for leaf, e in zip(leaves, ends, strict=True)]


def after(
    leaves: list[Leaf],
    state: GatedState,
    rows: list[Rows],
    out: list[Mixed],
    hidden: Float[Array, "n h"],
    departures: Float[Array, "n k"],
) -> GatedState:
    """The state after a step, but for what is watched."""
    treedef = jax.tree.structure(state.mu)

    def tree(each: list[Any]) -> Any:
        whole = [leaf.whole(x) for leaf, x in zip(leaves, each, strict=True)]
        return jax.tree.unflatten(treedef, whole)

    moments = [
        tree(list(field)) for field in zip(*(o.moments for o in out), strict=True)
    ]
    mu, nu, first, second = moments
    held = tree(split(leaves, departures)) if jax.tree.leaves(state.held) else ()
    return state._replace(
        count=optax.safe_increment(state.count),
        mu=mu,
        nu=nu,
        last=tree([o.bare.astype(jnp.bfloat16) for o in out]),
        first=first,
        second=second,
        start=tree([r.start for r in rows]),
        hidden=tree(split(leaves, hidden)),
        held=held,
    )


def watched(
    leaves: list[Leaf],
    rules: tuple[str, ...],
    acts: list[Decision],
    before: Watch,
    reverted: Bool[Array, ""],
    decided: Bool[Array, ""],
) -> Watch:
    """The counts and means of one more step."""
    total = max(sum(leaf.size * leaf.layers for leaf in leaves), 1)

    def mean(each: list[Array]) -> Array:
        parts = [leaf.size * x.sum() for leaf, x in zip(leaves, each, strict=True)]
        return jnp.stack(parts).sum() / total

    mix = {name: mean([a.weights[:, i] for a in acts]) for i, name in enumerate(rules)}
    mix["step"] = mean([a.step for a in acts])
    mix["decay"] = mean([a.decay for a in acts])
    mix["frozen"] = mean([1 - a.acts for a in acts])
    return Watch(
        before.skipped,
        before.reverted + reverted.astype(jnp.int32),
        decided.astype(jnp.int32),
        mix,
    )
