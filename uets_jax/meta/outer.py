"""One update of theta from a gradient."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from uets_jax.meta.settings import MetaConfig


def updated(
    theta: Any,
    start: Any,
    mean: Any,
    opt: Any,
    gradient: Any,
    fraction: Float[Array, ""],
    count: Int[Array, ""],
    config: MetaConfig,
) -> tuple[Any, Any, Any, Float[Array, ""]]:
    """AdamW on theta, clipped; its decay is towards the first theta."""
    norm = optax.tree.norm(gradient)
    shrink = jnp.minimum(1.0, config.clip / jnp.maximum(norm, 1e-12))
    gradient = jax.tree.map(lambda g: g * shrink, gradient)
    direction, opt = adam().update(gradient, opt)
    low, high = config.last_rate, config.rate
    cosine = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(fraction, 0.0, 1.0)))
    rate = low + (high - low) * cosine
    move = lambda p, p0, u: p - rate * (u + config.decay * (p - p0))
    theta = jax.tree.map(move, theta, start, direction)
    keep = jnp.minimum(config.average, (1.0 + count) / (10.0 + count))
    mean = jax.tree.map(lambda m, p: keep * m + (1 - keep) * p, mean, theta)
    return theta, mean, opt, norm


def adam() -> optax.GradientTransformation:
    """The direction of theta's updates."""
    return optax.scale_by_adam(b1=0.9, b2=0.99)
