"""Sinusoids to regress: the toy of learned initialisations (Finn et al. 2017)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from uets_jax.meta.family import Family, repeated
from uets_jax.types import Params


class Sine(NamedTuple):
    """amplitude in [0.1, 5], phase in [0, pi]: of y = amplitude sin(x - phase)."""

    amplitude: Float[Array, ""]
    phase: Float[Array, ""]


def sine(width: int = 32, batch: int = 10, horizon: int = 100) -> Family:
    """y from x in [-5, 5] by an MLP 1 - width - width - 1 with tanh; mean squares.

    Args:
      width: hidden units of both layers.
      batch: points of a mini-batch.
      horizon: nominal steps.
    """
    sizes = (1, width, width, 1)

    def instance(key: Key[Array, ""]) -> Sine:
        amplitude, phase = jax.random.split(key)
        return Sine(
            jax.random.uniform(amplitude, (), minval=0.1, maxval=5.0),
            jax.random.uniform(phase, (), maxval=jnp.pi),
        )

    def init(instance: Sine, key: Key[Array, ""]) -> Params:
        keys = jax.random.split(key, 3)
        draw = lambda k, a, b: {
            "w": jax.random.normal(k, (a, b)) * a**-0.5,
            "b": jnp.zeros(b),
        }
        shapes = zip(keys, sizes, sizes[1:], strict=False)
        return {f"layer{i}": draw(*shape) for i, shape in enumerate(shapes)}

    def loss(
        params: Params, instance: Sine, key: Key[Array, ""], rows: Int[Array, ""]
    ) -> Float[Array, ""]:
        x = jax.random.uniform(key, (batch,), minval=-5.0, maxval=5.0)
        return _error(params, instance, x[repeated(rows, batch)])

    def held(params: Params, instance: Sine) -> Float[Array, ""]:
        return _error(params, instance, jnp.linspace(-5.0, 5.0, 101))

    about = f"sinusoids by an MLP of width {width}, {batch} points"
    return Family("sine", instance, init, loss, held, batch, horizon, 1e-2, 0.0, about)


def _error(params: Params, own: Sine, x: Float[Array, " n"]) -> Float[Array, ""]:
    h = x[:, None]
    for i in range(3):
        h = jnp.tanh(h) if i else h
        h = h @ params[f"layer{i}"]["w"] + params[f"layer{i}"]["b"][None, :]
    wanted = own.amplitude * jnp.sin(x - own.phase)
    return jnp.square(h[:, 0] - wanted).mean()
