"""8x8 images in ten classes: real digits, or images that are made from a key."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from uets_jax.errors import UserError
from uets_jax.meta.family import Family, cross_entropy, distinct, repeated
from uets_jax.meta.nets import Net, conv, mlp

SIDE, CLASSES = 8, 10
_TRAIN, _OWN, _HELD = 1500, 600, 256

Images = tuple[Float[Array, "b 64"], Int[Array, " b"]]


class Source(NamedTuple):
    """instance: key -> which set of images. batch: (instance, key, rows) -> images and
    labels of a mini-batch. held: instance -> those that are kept back.
    """

    name: str
    instance: Callable[[Key[Array, ""]], Any]
    batch: Callable[[Any, Key[Array, ""], Int[Array, ""]], Images]
    held: Callable[[Any], Images]


class Digits(NamedTuple):
    """first: row of the training images at which its own 600 begin. flip: one of the 8
    symmetries of the square. gain, shift: of all pixels. wrong: share of false labels.
    """

    first: Int[Array, ""]
    flip: Int[Array, ""]
    gain: Float[Array, ""]
    shift: Float[Array, ""]
    wrong: Float[Array, ""]


def digits(batch: int = 32) -> Source:
    """The UCI digits that scikit-learn ships (1,797 images), in many guises.

    Raises:
      UserError: if scikit-learn isn't installed.
    """
    images, labels = (jnp.asarray(x) for x in read_digits())

    def instance(key: Key[Array, ""]) -> Digits:
        first, flip, gain, shift, wrong = jax.random.split(key, 5)
        return Digits(
            jax.random.randint(first, (), 0, _TRAIN - _OWN),
            jax.random.randint(flip, (), 0, 8),
            jnp.exp(jax.random.uniform(gain, (), minval=-0.7, maxval=0.7)),
            jax.random.uniform(shift, (), minval=-0.5, maxval=0.5),
            jax.random.uniform(wrong, (), maxval=0.1),
        )

    def dressed(own: Digits, places: Array) -> Float[Array, "b 64"]:
        square = images[places].reshape(-1, SIDE, SIDE)
        square = jnp.where(own.flip & 1, square[:, ::-1], square)
        square = jnp.where(own.flip & 2, square[:, :, ::-1], square)
        square = jnp.where(own.flip & 4, square.swapaxes(1, 2), square)
        return own.gain * square.reshape(-1, SIDE * SIDE) + own.shift

    def pick(own: Digits, key: Key[Array, ""], rows: Int[Array, ""]) -> Images:
        draw, noise = jax.random.split(key)
        random = jax.random.randint(draw, (batch,), 0, _OWN)
        places = own.first + distinct(rows, batch, random)
        false = jax.random.uniform(noise, (batch,)) < own.wrong
        known = labels[places]
        return dressed(own, places), jnp.where(false, (known + 1) % CLASSES, known)

    def held(own: Digits) -> Images:
        places = jnp.arange(_TRAIN, _TRAIN + _HELD)
        return dressed(own, places), labels[places]

    return Source("digits", instance, pick, held)


@functools.cache
def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Images [1797, 64] with mean 0 and deviation 1, and labels [1797].

    Raises:
      UserError: if scikit-learn isn't installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError(
            "digits: scikit-learn is not installed: pip install scikit-learn, or use "
            "shapes(), which needs no data"
        ) from None
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images = np.asarray(images, np.float32)[order]
    scaled = (images - images.mean()) / images.std()
    return scaled, np.asarray(labels, np.int32)[order]


def has_digits() -> bool:
    """Whether `digits` can be had."""
    try:
        read_digits()
    except UserError:
        return False
    return True


class Shapes(NamedTuple):
    """patterns: one smooth image per class. noise: of each pixel. key: of the rest."""

    patterns: Float[Array, "k 8 8"]
    noise: Float[Array, ""]
    key: Key[Array, ""]


def shapes(batch: int = 32) -> Source:
    """Smooth random patterns, moved by up to 2 pixels around the edge, under noise.

    Images are fresh in every mini-batch; those that are held back are drawn by a key of
    their own.
    """

    def instance(key: Key[Array, ""]) -> Shapes:
        draw, level, own = jax.random.split(key, 3)
        patterns = jax.random.normal(draw, (CLASSES, SIDE, SIDE))
        for axis in (1, 2):
            near = jnp.roll(patterns, 1, axis) + jnp.roll(patterns, -1, axis)
            patterns = patterns + 0.7 * near
        deviation = patterns.std((1, 2), keepdims=True)
        noise = jax.random.uniform(level, (), minval=0.3, maxval=1.5)
        return Shapes(patterns / deviation, noise, own)

    def draw(own: Shapes, key: Key[Array, ""], n: int, rows: Array) -> Images:
        label, move, noise = jax.random.split(key, 3)
        labels = jax.random.randint(label, (n,), 0, CLASSES)
        moves = jax.random.randint(move, (n, 2), -2, 3)
        pixels = own.noise * jax.random.normal(noise, (n, SIDE, SIDE))
        roll = lambda image, by: jnp.roll(image, by, (0, 1))
        images = jax.vmap(roll)(own.patterns[labels], moves) + pixels
        places = repeated(rows, n)
        return images.reshape(n, -1)[places], labels[places]

    def pick(own: Shapes, key: Key[Array, ""], rows: Int[Array, ""]) -> Images:
        return draw(own, key, batch, rows)

    def held(own: Shapes) -> Images:
        return draw(own, jax.random.fold_in(own.key, 0), _HELD, jnp.asarray(_HELD))

    return Source("shapes", instance, pick, held)


def vision(
    source: Source, net: Net, batch: int = 32, horizon: int = 200, rate: float = 3e-2
) -> Family:
    """Classification of 8x8 images by a small network.

    Args:
      source: of the images, made with the same `batch`.
      net: from `nets`: `mlp(...)` or `conv(...)`.
      batch: rows of a mini-batch.
      horizon: nominal steps.
      rate: the peak learning rate.
    """

    def loss(
        params: Any, instance: Any, key: Key[Array, ""], rows: Int[Array, ""]
    ) -> Float[Array, ""]:
        images, labels = source.batch(instance, key, rows)
        return cross_entropy(net.logits(params, images), labels)

    def held(params: Any, instance: Any) -> Float[Array, ""]:
        images, labels = source.held(instance)
        return cross_entropy(net.logits(params, images), labels)

    return Family(
        f"{net.name}/{source.name}",
        source.instance,
        lambda instance, key: net.init(key),
        loss,
        held,
        batch,
        horizon,
        rate,
        about=f"{net.name} on 8x8 {source.name}, {batch} rows",
    )


__all__ = ["Source", "conv", "digits", "has_digits", "mlp", "shapes", "vision"]
