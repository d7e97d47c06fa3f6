"""The learned optimizer of Andrychowicz et al. 2016: an LSTM, the same for all weights.

Every scalar parameter has a state of its own and sees its own gradient alone.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from uets_jax.types import Params

HIDDEN = 20
SCALE = 0.1  # of the output
P = 10.0  # gradients below exp(-P) are seen on a linear scale

Theta = dict[str, dict[str, Array]]


class Cells(NamedTuple):
    """Of one layer; leaves are params' with an axis of `HIDDEN` units behind."""

    hidden: Params
    cell: Params


class LstmState(NamedTuple):
    """Of both layers."""

    first: Cells
    second: Cells


def init_lstm(key: Key[Array, ""]) -> Theta:
    """Weights: `first` [2 + H, 4H], `second` [2H, 4H], `out` [H, 1], and biases.

    Normal with variance 1 / inputs, biases 0; gates in the order input, candidate,
    forget, output.
    """

    def linear(key, inputs, outputs):
        w = jax.random.normal(key, (inputs, outputs)) / math.sqrt(inputs)
        return {"w": w, "b": jnp.zeros(outputs)}

    first, second, out = jax.random.split(key, 3)
    return {
        "first": linear(first, 2 + HIDDEN, 4 * HIDDEN),
        "second": linear(second, 2 * HIDDEN, 4 * HIDDEN),
        "out": linear(out, HIDDEN, 1),
    }


def seen(g: Float[Array, "..."]) -> Float[Array, "... 2"]:
    """(log|g| / p, sign g) where |g| >= exp(-p), else (-1, exp(p) g)."""
    small = jnp.abs(g) < math.exp(-P)
    size = jnp.log(jnp.where(small, 1.0, jnp.abs(g))) / P
    first = jnp.where(small, -1.0, size)
    return jnp.stack([first, jnp.where(small, math.exp(P) * g, jnp.sign(g))], -1)


def scale_by_lstm(theta: Theta) -> optax.GradientTransformation:
    """g -> 0.1 LSTM(g), coordinate by coordinate: two layers of 20 units.

    A direction as any `scale_by_*` gives: the step is minus the learning rate times it
    (the paper adds its output, so that its weights `out` have the other sign). `theta`
    is an argument, no state: vmap over it and differentiate by it as by any other. A
    gradient of the update by `theta` goes through g, too; the paper cuts it there
    (`lax.stop_gradient`).

    Args:
      theta: weights as of `init_lstm`.

    Source: Andrychowicz et al. 2016 (arXiv:1606.04474), appendix A for `seen`.
    """

    def init(params: Params) -> LstmState:
        like = lambda p: jnp.zeros((*p.shape, HIDDEN), jnp.float32)
        zeros = lambda: jax.tree.map(like, params)
        return LstmState(*(Cells(zeros(), zeros()) for _ in range(2)))

    def update(updates, state, params=None):
        def one(g, *cells):
            h1, c1 = _layer(theta["first"], seen(g.astype(jnp.float32)), *cells[:2])
            h2, c2 = _layer(theta["second"], h1, *cells[2:])
            out = _linear(theta["out"], h2)[..., 0]
            return (SCALE * out).astype(g.dtype), h1, c1, h2, c2

        old = (*state.first, *state.second)
        found = jax.tree.map(one, updates, *old)
        pick = lambda i: jax.tree.map(lambda _, f: f[i], updates, found)
        direction, h1, c1, h2, c2 = map(pick, range(5))
        return direction, LstmState(Cells(h1, c1), Cells(h2, c2))

    return optax.GradientTransformation(init, update)


def _linear(weights: dict[str, Array], x: Array) -> Array:
    y = x @ weights["w"]
    return y + weights["b"].reshape((1,) * (y.ndim - 1) + (-1,))


def _layer(weights: dict[str, Array], x: Array, h: Array, c: Array) -> Any:
    """(hidden, cell) after one step; the forget gate has 1 added to its bias."""
    gates = _linear(weights, jnp.concatenate([x, h], -1))
    i, g, f, o = jnp.split(gates, 4, -1)
    c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c
