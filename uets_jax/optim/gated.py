"""A recurrent gate that mixes update rules, layer by layer: an optax transformation.

For a layer with gradient g and weights p, d_k the direction of rule k with RMS 1, n the
update of the nominal rule, and w, a, b the gate's decisions:

    u = RMS(n) e^a unit(sum_k w_k d_k) + weight_decay e^b p

so that a gate that trusts the nominal rule alone is that rule. What follows is only
`-learning_rate`.

Source: own; nearest are learned combinations of rules (Premont-Schwarz et al. 2024,
arXiv:2408.09310; Ozkara et al. 2024, MADA), a nominal term (Harrison et al. 2022,
arXiv:2209.11208), grafted magnitudes (Agarwal et al. 2020, arXiv:2002.11803).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from uets_jax.optim import features
from uets_jax.optim.gate import GateSettings, GateTheta, between, decide, units_of
from uets_jax.optim.gated_state import (
    GatedState,
    after,
    all_rows,
    fresh,
    known,
    split,
    stacked,
    watched,
)
from uets_jax.optim.leaves import Leaf, Tree, describe
from uets_jax.optim.mixture import Mixed, Rows, decision, mixed
from uets_jax.optim.nominal import nominal_rule
from uets_jax.optim.stored import Weights, resolved
from uets_jax.types import Params

GATE = "gate"  # name of the branch in which decisions are taken


def _unnamed(
    name: str, predicate: Any, true_fun: Callable, false_fun: Callable, *operands: Any
) -> Any:
    """`lax.cond`; `measure.scopes.branch` in its place charges arms by their runs."""
    return jax.lax.cond(predicate, true_fun, false_fun, *operands)


def _described(init: Callable[[Params], Any], about: dict[str, Tree | None]) -> Any:
    """`init`, once the leaves have been found to be what they are said to be."""

    def checked(params: Params) -> Any:
        describe(params, **about)
        return init(params)

    return checked


def scale_by_gated_rules(
    theta: Weights = None,
    *,
    matrices: Tree | None = None,
    decayed: Tree | None = None,
    layer_axis: Tree | None = None,
    roles: Tree | None = None,
    weight_decay: Any = 0.0,
    settings: GateSettings | None = None,
    branch: Callable[..., Any] = _unnamed,
) -> optax.GradientTransformationExtraArgs:
    """The mixture of rules, weight decay included, without the learning rate.

    `update` knows these extra arguments, all optional, scalar and traced: `value` (the
    loss), `progress` in [0, 1] or `steps` (of the run), `learning_rate` (only its share
    of the peak is read), `weight_decay` (instead of the constant). Moments are kept in
    float32, updates in the dtype of the parameters. A step whose gradient, loss or
    update is not finite has a zero update and leaves no trace but a count. Without
    theta neither holds: what is left is the nominal rule as it is.

    Args:
      theta: of `gate.init_theta`, or learned; may be traced. "default": what is
        shipped; the path of a file of weights; or what `stored.load_theta` gave. None:
        the nominal rule of the settings, with no gate in the program.
      matrices: params -> (input axes, output axes) of the hidden matrices, else None;
        these four are as in `leaves.describe`, which reads paths where they are None.
      decayed: params -> True where weight decay applies.
      layer_axis: params -> 0 where axis 0 counts layers, else -1.
      roles: params -> name from `leaves.ROLES`.
      weight_decay: decoupled; times the learning rate that follows.
      settings: all that is not learned; weights of a file bring their own.
      branch: `measure.scopes.branch` where the FLOPs of both arms are counted, with
        `settings.every` above 1; see `GATE`.

    Raises:
      UserError: for axes, roles or layer axes that don't fit a leaf, and weights that
        can't be read or don't fit the settings.
    """
    theta, settings = resolved(theta, settings)
    kinds = {"matrices": matrices, "decayed": decayed}
    about = {**kinds, "layer_axis": layer_axis, "roles": roles}
    if theta is None:
        nominal = nominal_rule(settings, **kinds, weight_decay=weight_decay)
        return nominal._replace(init=_described(nominal.init, about))
    plain = weight_decay

    def init(params: Params) -> GatedState:
        return fresh(params, describe(params, **about), settings)

    def update(
        updates,
        state,
        params=None,
        *,
        value=None,
        progress=None,
        steps=None,
        learning_rate=None,
        weight_decay=plain,
        **extra,
    ):
        if params is None:
            raise ValueError("scale_by_gated_rules: update needs `params`")
        leaves = describe(params, **about)
        if not leaves:
            return updates, state
        seen, common = known(state, value, progress, steps, learning_rate)
        rows = all_rows(leaves, updates, params, state)
        hidden, departures, decided = _decide(
            theta, settings, leaves, seen, rows, common, branch
        )
        reverted = features.diverges(seen.losses, settings.divergence)
        used = between(settings, departures, decided)
        used = split(leaves, jnp.where(reverted, 0.0, used))
        acts = [decision(d, settings, x) for x, d in zip(leaves, used, strict=True)]
        out = [
            mixed(theta, settings, leaf, do, row, weight_decay)
            for leaf, do, row in zip(leaves, acts, rows, strict=True)
        ]
        new = after(leaves, seen, rows, out, hidden, departures)
        new = new._replace(
            watch=watched(leaves, settings.rules, acts, state.watch, reverted, decided)
        )
        return _if_finite(leaves, params, rows, out, value, state, new)

    return optax.GradientTransformationExtraArgs(init, update)


def gate_metrics(opt_state: Any) -> dict[str, Array]:
    """Scalars of the first gated rule in an optax state; none: {}.

    gate_NAME (mean weight of each rule), gate_step and gate_decay (mean multipliers),
    gate_frozen (share left out), each over parameters; gate_skipped and gate_reverted,
    counts of steps (see `Watch`); taken/gate, where decisions are not taken every step.
    """
    is_gated = lambda x: isinstance(x, GatedState)
    found = [*filter(is_gated, jax.tree.leaves(opt_state, is_leaf=is_gated))]
    if not found:
        return {}
    watch, held = found[0].watch, jax.tree.leaves(found[0].held)
    metrics = {f"gate_{name}": mean for name, mean in watch.mix.items()}
    counts = {"gate_skipped": watch.skipped, "gate_reverted": watch.reverted}
    taken = {f"taken/{GATE}": watch.decided} if held else {}
    return {**metrics, **counts, **taken}


def _if_finite(
    leaves: list[Leaf],
    params: Params,
    rows: list[Rows],
    out: list[Mixed],
    value: Any,
    old: GatedState,
    new: GatedState,
) -> tuple[Any, GatedState]:
    """(updates, state): what was made, or zeros and the old state but for a count."""
    sizes = [jnp.square(x).sum() for x in (r.g for r in rows)]
    sizes += [jnp.square(o.update).sum() for o in out]
    good = jnp.isfinite(jnp.stack(sizes)).all()
    if value is not None:
        good &= jnp.isfinite(value)
    flat, treedef = jax.tree.flatten(params)
    whole = [
        jnp.where(good, leaf.whole(o.update), 0.0).astype(p.dtype)
        for leaf, o, p in zip(leaves, out, flat, strict=True)
    ]
    kept = jax.tree.map(lambda n, o: jnp.where(good, n, o), new, old)
    watch = kept.watch._replace(
        skipped=old.watch.skipped + (~good).astype(jnp.int32),
        decided=new.watch.decided,
    )
    return jax.tree.unflatten(treedef, whole), kept._replace(watch=watch)


def _decide(
    theta: GateTheta,
    settings: GateSettings,
    leaves: list[Leaf],
    state: GatedState,
    rows: list[Rows],
    common: Float[Array, " 12"],
    branch: Callable[..., Any],
) -> tuple[Array, Array, Array]:
    """(hidden [N, H], departures [N, K], whether they are new), of all units."""
    units = units_of(leaves, settings)
    rows_of = lambda tree: stacked(leaves, state, tree)

    def anew() -> tuple[Array, Array]:
        seen = [
            features.of_leaf(leaf, r.g, r.p, r.moments, r.last, r.start, common)
            for leaf, r in zip(leaves, rows, strict=True)
        ]
        x = jnp.concatenate(seen)
        return decide(theta, settings, units, x, rows_of(state.hidden))

    if settings.every == 1:
        return *anew(), jnp.ones((), bool)
    due = state.count % settings.every == 0
    old = lambda: (rows_of(state.hidden), rows_of(state.held))
    return *branch(GATE, due, anew, old), due
