"""Sizes of arrays per layer, safe to differentiate at zero.

Everywhere x is [L, ...] with a leading axis of layers (1 for a leaf that isn't
stacked), and a size is [L].
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

TINY = 1e-30


def along(size: Float[Array, " l"], x: Float[Array, "l ..."]) -> Float[Array, "..."]:
    """[L] as [L, 1, ...], of the rank of x."""
    return size.reshape(-1, *(1,) * (x.ndim - 1))


def mean_product(
    x: Float[Array, "l ..."], y: Float[Array, "l ..."]
) -> Float[Array, " l"]:
    """The mean of x y over all axes but the first; 0 of nothing."""
    flat = (x * y).reshape(x.shape[0], -1) if x.size else jnp.zeros((x.shape[0], 1))
    return flat.mean(1)


def mean_square(x: Float[Array, "l ..."]) -> Float[Array, " l"]:
    """The mean of x^2 over all axes but the first."""
    return mean_product(x, x)


def safe_sqrt(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """sqrt(x) for x > 0, else 0, with the derivative 0 there."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


def safe_rsqrt(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """1 / sqrt(x) for x > 0, else 0, with the derivative 0 there."""
    positive = x > TINY
    root = jnp.sqrt(jnp.where(positive, x, 1.0))
    return jnp.where(positive, 1.0 / root, 0.0)


def unit(x: Float[Array, "l ..."]) -> Float[Array, "l ..."]:
    """x with RMS 1 in each layer; zeros stay."""
    return x * along(safe_rsqrt(mean_square(x)), x)


def cosine(x: Float[Array, "l ..."], y: Float[Array, "l ..."]) -> Float[Array, " l"]:
    """Of the angle between two arrays in each layer; 0 where one is zero."""
    inverse = safe_rsqrt(mean_square(x)) * safe_rsqrt(mean_square(y))
    return mean_product(x, y) * inverse
