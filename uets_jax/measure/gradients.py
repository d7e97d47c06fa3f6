"""What gradients say of layers and of the batch: size, saturation, noise."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from uets_jax.types import Params

_LEAST = 1e-12  # RMS that counts as none


class Noise(NamedTuple):
    """Of the gradient of one row. The two are unbiased, so they may be averaged over
    batches; their ratio is not, so divide the averages.

    noise:  tr(S), the summed variance of a row's gradient.
    signal: |G|^2, the square of the true gradient; an estimate can be negative.
    """

    noise: Float[Array, ""]
    signal: Float[Array, ""]


def layer_rms(blocks: Params) -> Float[Array, " layers"]:
    """Root mean square over all entries of each layer; every leaf is [layers, ...]."""
    leaves = [x.reshape(x.shape[0], -1) for x in jax.tree.leaves(blocks)]
    square = sum(jnp.square(x.astype(jnp.float32)).sum(1) for x in leaves)
    return jnp.sqrt(square / sum(x.shape[1] for x in leaves))


def saturation(
    params: Float[Array, " layers"], grads: Float[Array, " layers"]
) -> Float[Array, " layers"]:
    """log10(RMS of parameters / RMS of their gradient), from each layer's RMS.

    The decades between a layer and what the loss asks of it: +1 is a gradient ten times
    smaller for the same weights, a layer that plain gradient steps would change ten
    times less. Both are taken as at least 1e-12. It is relative: compare layers, or one
    layer over time; its level depends on the loss's scale.
    """
    return jnp.log10(jnp.maximum(params, _LEAST) / jnp.maximum(grads, _LEAST))


def two_halves(first: Params, second: Params, rows: int) -> Noise:
    """Noise and signal from the mean gradients of two halves of a batch of `rows` rows.

    McCandlish et al. 2018, appendix A.1, with B_big = rows and B_small = rows / 2; for
    two halves their estimators become |G|^2 = g1 . g2 and tr(S) = rows |g1 - g2|^2 / 4.
    """
    apart = jax.tree.map(jnp.subtract, first, second)
    noise = rows * optax.tree.norm(apart, squared=True) / 4
    return Noise(noise, jnp.asarray(optax.tree.vdot(first, second)))


def noise_scale(estimate: Noise) -> Float[Array, ""]:
    """B_simple = tr(S) / |G|^2 in rows: the batch from which on more rows help little.

    inf where noise hides the signal (an estimate of |G|^2 that is not positive).
    """
    clear = estimate.signal > 0
    ratio = estimate.noise / jnp.where(clear, estimate.signal, 1.0)
    return jnp.where(clear, ratio, jnp.inf)
