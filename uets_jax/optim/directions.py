"""Directions that a gate mixes: Adam, Muon, Lion, momentum, each in float32.

Rows are [L, ...]: one layer after the other. Moments are debiased by their masses,
m_t / s_t with s_t = b s_(t-1) + 1 - b, which for a constant b is 1 - b^t and stays
right where b changes from step to step, and for a layer that was born later.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from uets_jax.optim.leaves import Leaf
from uets_jax.optim.norms import along, safe_sqrt

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Jordan 2024
ITERATIONS = 5


class Moments(NamedTuple):
    """Of one leaf: moments [L, ...] and their masses [L]."""

    mu: Float[Array, "l ..."]
    nu: Float[Array, "l ..."]
    first: Float[Array, " l"]
    second: Float[Array, " l"]


def advance(
    moments: Moments,
    g: Float[Array, "l ..."],
    b1: Float[Array, " l"],
    b2: Float[Array, " l"],
) -> Moments:
    """The moments after one more gradient; decays may differ from layer to layer."""
    b, c = along(b1, g), along(b2, g)
    return Moments(
        b * moments.mu + (1 - b) * g,
        c * moments.nu + (1 - c) * g * g,
        b1 * moments.first + (1 - b1),
        b2 * moments.second + (1 - b2),
    )


def nesterov(
    moments: Moments, g: Float[Array, "l ..."], b1: Float[Array, " l"]
) -> Float[Array, "l ..."]:
    """b m_t / s_(t+1) + (1 - b) g / s_t, as in optax (Dozat 2016)."""
    ahead = b1 * moments.first + (1 - b1)
    b = along(b1, g)
    return b * moments.mu / along(ahead, g) + (1 - b) * g / along(moments.first, g)


def adam(
    moments: Moments,
    g: Float[Array, "l ..."],
    b1: Float[Array, " l"],
    eps: float,
    ahead: bool = False,
) -> Float[Array, "l ..."]:
    """Adam (Kingma & Ba 2015), with `ahead` its Nesterov form."""
    m = nesterov(moments, g, b1) if ahead else moments.mu / along(moments.first, g)
    return m / (safe_sqrt(moments.nu / along(moments.second, g)) + eps)


def muon(
    moments: Moments,
    g: Float[Array, "l ..."],
    b1: Float[Array, " l"],
    eps: float,
    leaf: Leaf,
) -> Float[Array, "l ..."]:
    """Newton-Schulz of the Nesterov momentum, each matrix on its own (Jordan 2024)."""
    return leaf.from_matrices(
        orthogonal(leaf.as_matrices(nesterov(moments, g, b1)), eps)
    )


def lion(
    mu: Float[Array, "l ..."], g: Float[Array, "l ..."], mix: float
) -> Float[Array, "l ..."]:
    """sign(mix m + (1 - mix) g), m before this gradient (Chen et al. 2023)."""
    return jnp.sign(mix * mu + (1 - mix) * g)


def orthogonal(
    x: Float[Array, "l b r c"], eps: float = 1e-8
) -> Float[Array, "l b r c"]:
    """Five quintic Newton-Schulz iterations on every matrix [r, c]; zero stays zero."""
    a, b, c = COEFFICIENTS
    flip = x.shape[-2] > x.shape[-1]
    x = x.mT if flip else x
    norm = safe_sqrt((x * x).sum((-2, -1), keepdims=True))
    x = x / (norm + eps)
    for _ in range(ITERATIONS):
        s = x @ x.mT
        x = a * x + (b * s + c * s @ s) @ x
    return x.mT if flip else x
