"""Networks of a few thousand weights for 8x8 images, as pairs of pure functions."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from uets_jax.errors import UserError, nearest
from uets_jax.types import Params

_ACTIVATIONS = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "gelu": jax.nn.gelu,
    "relu2": lambda x: jnp.square(jax.nn.relu(x)),
}


class Net(NamedTuple):
    """init: key -> params. logits: (params, images [b, 64]) -> [b, 10]."""

    name: str
    init: Callable[[Key[Array, ""]], Params]
    logits: Callable[[Params, Float[Array, "b 64"]], Float[Array, "b 10"]]


def mlp(hidden: Sequence[int] = (32,), activation: str = "relu") -> Net:
    """64 -> hidden .. -> 10, weights with variance 1 / inputs.

    Raises:
      UserError: for an unknown activation.
    """
    sizes, act = (64, *hidden, 10), _activation(activation)

    def init(key: Key[Array, ""]) -> Params:
        keys = jax.random.split(key, len(sizes) - 1)
        pairs = zip(keys, sizes, sizes[1:], strict=False)
        return {f"layer{i}": _dense(*pair) for i, pair in enumerate(pairs)}

    def logits(params: Params, x: Float[Array, "b 64"]) -> Float[Array, "b 10"]:
        for i in range(len(sizes) - 1):
            x = _affine(params[f"layer{i}"], act(x) if i else x)
        return x

    shape = "-".join(map(str, hidden))
    return Net(f"mlp-{shape}-{activation}", init, logits)


def conv(channels: Sequence[int] = (8, 16), activation: str = "relu") -> Net:
    """3x3 convolutions, each with stride 2 after the first, mean pool, 10 classes.

    A kernel is a matrix [9 inputs, outputs] that multiplies patches: on a CPU, and with
    a kernel of its own for each of many problems, much faster than a convolution.

    Raises:
      UserError: for an unknown activation.
    """
    sizes, act = (1, *channels), _activation(activation)

    def init(key: Key[Array, ""]) -> Params:
        last, *keys = jax.random.split(key, len(sizes))
        pairs = zip(keys, sizes, sizes[1:], strict=False)
        own = {f"conv{i}": _dense(k, 9 * a, b) for i, (k, a, b) in enumerate(pairs)}
        return {**own, "head": _dense(last, sizes[-1], 10)}

    def logits(params: Params, x: Float[Array, "b 64"]) -> Float[Array, "b 10"]:
        grid = x.reshape(-1, 8, 8, 1)
        for i in range(len(channels)):
            grid = act(_affine(params[f"conv{i}"], _patches(grid, 2 if i else 1)))
        return _affine(params["head"], grid.mean((1, 2)))

    shape = "-".join(map(str, channels))
    return Net(f"conv-{shape}-{activation}", init, logits)


def _activation(name: str) -> Callable[[Array], Array]:
    if name not in _ACTIVATIONS:
        raise UserError(f"activation {name!r}: {nearest(name, _ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def _dense(key: Key[Array, ""], inputs: int, outputs: int) -> Params:
    w = jax.random.normal(key, (inputs, outputs)) * inputs**-0.5
    return {"w": w, "b": jnp.zeros(outputs)}


def _affine(layer: Params, x: Array) -> Array:
    out = x @ layer["w"]
    return out + layer["b"].reshape((1,) * (out.ndim - 1) + (-1,))


def _patches(x: Float[Array, "b h w c"], stride: int) -> Float[Array, "b u v d"]:
    """The 3x3 neighbourhood of every `stride`-th place, zeros around the edge."""
    h, w = x.shape[1:3]
    wide = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [
        wide[:, i : i + h : stride, j : j + w : stride]
        for i in range(3)
        for j in range(3)
    ]
    return jnp.concatenate(shifted, -1)
