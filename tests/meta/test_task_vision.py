"""Images: they can be learned, wear many guises, and some are kept back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.meta.nets import conv, mlp
from uets_jax.meta.task_vision import (
    Digits,
    digits,
    has_digits,
    read_digits,
    shapes,
    vision,
)

ALL = jnp.asarray(256)
needs_digits = pytest.mark.skipif(not has_digits(), reason="scikit-learn is missing")


def test_shapes_are_finite_distinct_and_learned_by_an_mlp(learns):
    learns(vision(shapes(8), mlp((8,), "tanh"), 8))


def test_shapes_are_learned_by_a_convolution(learns):
    learns(vision(shapes(8), conv((4, 4), "gelu"), 8))


@needs_digits
def test_digits_are_finite_distinct_and_learned(learns):
    learns(vision(digits(8), mlp((8,)), 8))


def test_without_noise_a_shape_is_its_pattern_moved(key):
    source = shapes(16)
    own = source.instance(key)._replace(noise=jnp.zeros(()))
    images, labels = jax.jit(source.batch)(own, jax.random.key(1), jnp.asarray(16))
    patterns = np.asarray(own.patterns)
    np.testing.assert_allclose(patterns.std((1, 2)), 1.0, rtol=1e-4)
    for image, label in zip(np.asarray(images), np.asarray(labels), strict=True):
        moved = [
            np.roll(patterns[label], (a, b), (0, 1))
            for a in range(-2, 3)
            for b in range(-2, 3)
        ]
        assert min(abs(image.reshape(8, 8) - m).max() for m in moved) < 1e-6


def test_shapes_of_a_smaller_batch_repeat_and_held_ones_stay(key):
    source = shapes(8)
    own = source.instance(key)
    images, labels = jax.jit(source.batch)(own, jax.random.key(1), jnp.asarray(3))
    np.testing.assert_array_equal(images[3:6], images[:3])
    np.testing.assert_array_equal(labels[3:6], labels[:3])
    held, again = source.held(own), source.held(own)
    np.testing.assert_array_equal(held[0], again[0])
    assert held[0].shape == (256, 64)
    assert not np.isin(np.asarray(images), np.asarray(held[0])).any()


@needs_digits
@pytest.mark.parametrize("flip", range(8))
def test_digits_wear_all_symmetries_of_the_square(flip):
    own = Digits(*map(jnp.asarray, (7, flip, 2.0, -0.5, 0.0)))
    held, labels = digits().held(own)
    images, known = read_digits()
    np.testing.assert_array_equal(labels, known[1500:1756])
    square = images[1500:1756].reshape(-1, 8, 8)
    square = square[:, ::-1] if flip & 1 else square
    square = square[:, :, ::-1] if flip & 2 else square
    square = square.swapaxes(1, 2) if flip & 4 else square
    expected = 2.0 * square.reshape(-1, 64) - 0.5
    np.testing.assert_allclose(held, expected, rtol=1e-5, atol=1e-5)


@needs_digits
def test_a_share_of_labels_is_wrong_and_only_own_digits_are_drawn():
    source = digits(256)
    images, known = read_digits()
    pick = jax.jit(source.batch)
    for wrong in (0.0, 0.25):
        own = Digits(*map(jnp.asarray, (100, 0, 1.0, 0.0, wrong)))
        found, labels = pick(own, jax.random.key(0), ALL)
        apart = abs(np.asarray(found)[:, None] - images[None, 100:700]).max(-1)
        places = 100 + apart.argmin(1)
        assert apart.min(1).max() < 1e-5
        false = np.asarray(labels) != known[places]
        np.testing.assert_array_equal(
            np.asarray(labels)[false], (known[places][false] + 1) % 10
        )
        assert abs(false.mean() - wrong) < 0.08
        assert wrong > 0 or not false.any()
