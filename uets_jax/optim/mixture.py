"""One leaf's part of a gated rule: from rows and decisions to moments and update."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from uets_jax.optim.directions import Moments, adam, advance, lion, muon, nesterov
from uets_jax.optim.gate import GateSettings, GateTheta
from uets_jax.optim.leaves import Leaf
from uets_jax.optim.mlp import direction
from uets_jax.optim.nominal import pulled
from uets_jax.optim.norms import along, mean_square, safe_sqrt, unit

MOST_NEW = 0.9  # of a gradient in a moment


class Rows(NamedTuple):
    """A leaf in float32, [L, ...] each: gradient, weights, moments, the update before,
    and [L], the RMS of the first weights.
    """

    g: Float[Array, "l ..."]
    p: Float[Array, "l ..."]
    moments: Moments
    last: Float[Array, "l ..."]
    start: Float[Array, " l"]


class Decision(NamedTuple):
    """For each layer of a leaf, nominal rule and departure put together.

    weights: of the rules, 1 in sum.
    step, decay: multipliers.
    b1, b2:  decays of the moments.
    acts:    0 where the update is left out.
    """

    weights: Float[Array, "l k"]
    step: Float[Array, " l"]
    decay: Float[Array, " l"]
    b1: Float[Array, " l"]
    b2: Float[Array, " l"]
    acts: Float[Array, " l"]


class Mixed(NamedTuple):
    """Rows of a leaf's update with weight decay, without it, and its moments."""

    update: Float[Array, "l ..."]
    bare: Float[Array, "l ..."]
    moments: Moments


def decision(
    departure: Float[Array, "l k"], settings: GateSettings, leaf: Leaf
) -> Decision:
    """What a row of `gate.decide` means for a leaf; zeros are the nominal rule."""
    k, place = len(settings.rules), settings.nominal_of(leaf)
    muon = settings.rules[place] == "muon"
    first, second = (settings.momentum if muon else settings.b1), settings.b2
    step, decay, faster, quicker, skips, *_ = departure[:, k:].T
    most = lambda b: max(MOST_NEW, 1 - b)
    kept = lambda b, faster: 1 - jnp.minimum((1 - b) * jnp.exp(faster), most(b))
    return Decision(
        departure[:, :k].at[:, place].add(1.0),
        jnp.exp(step),
        jnp.exp(decay),
        kept(first, faster),
        kept(second, quicker),
        1 - skips,
    )


def mixed(
    theta: GateTheta,
    settings: GateSettings,
    leaf: Leaf,
    do: Decision,
    rows: Rows,
    weight_decay: Any,
) -> Mixed:
    """The part of `scale_by_gated_rules` that is done leaf by leaf."""
    g, p, before, *_ = rows
    moments = advance(before, g, do.b1, do.b2)
    place = settings.nominal_of(leaf)
    total, size = jnp.zeros_like(g), jnp.zeros(leaf.layers)
    for number, rule in enumerate(settings.rules):
        if rule == "muon" and leaf.axes is None:
            continue
        d = _direction(rule, theta, settings, leaf, do.b1, rows, moments)
        if number == place:
            size = safe_sqrt(mean_square(d)) * _scale(rule, settings, leaf)
        total = total + along(do.weights[:, number], d) * unit(d)
    u = along(do.acts * do.step * size, total) * unit(total)
    decay = along(do.acts * do.decay * weight_decay, p)
    whole = u + pulled(u, p, decay, settings.cautious) if leaf.decays else u
    return Mixed(whole, u, moments)


def _scale(rule: str, settings: GateSettings, leaf: Leaf) -> float:
    """Factor of the nominal update, as in `rules`: Muon's RMS is about 0.2."""
    if rule == "muon":
        return 0.2 * max(leaf.fans) ** 0.5
    if leaf.axes is not None:
        return 1.0
    return settings.adam_ratio if settings.nominal == "muon" else settings.rest_ratio


def _direction(
    rule: str,
    theta: GateTheta,
    s: GateSettings,
    leaf: Leaf,
    b1: Float[Array, " l"],
    rows: Rows,
    moments: Moments,
) -> Float[Array, "l ..."]:
    g = rows.g
    if rule == "adam":
        return adam(moments, g, b1, s.eps, s.ahead)
    if rule == "muon":
        return muon(moments, g, b1, s.eps, leaf)
    if rule == "lion":
        return lion(rows.moments.mu, g, s.lion_mix)
    if rule == "momentum":
        return nesterov(moments, g, b1)
    view = leaf.as_matrices
    d = direction(
        theta.mlp, view(g), view(rows.p), [view(moments.mu)], view(moments.nu)
    )
    return leaf.from_matrices(d)
