from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.models.layers import Dropout, Norm, implementation, kernel_init, rotate
from uets_jax.models.presets import model_config


def test_rotation_makes_scores_depend_on_distance_only(key):
    q, k = jax.random.normal(key, (2, 8))
    rows = lambda v: jnp.broadcast_to(v, (1, 10, 1, 8))
    scores = jnp.einsum("blhk,bmhk->lm", rotate(rows(q)), rotate(rows(k)))
    for distance in range(1, 5):
        diagonal = jnp.diagonal(scores, -distance)
        np.testing.assert_allclose(diagonal, diagonal[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scores[3, 3], q @ k, rtol=1e-4)


@pytest.mark.parametrize("kind", ["rms", "layer"])
def test_norms_equal_their_formulas(kind, key):
    x = 3 + 2 * jax.random.normal(key, (4, 6))
    norm = Norm(kind, bias=kind == "layer")
    y: Any = norm.apply(norm.init(key, x), x)
    if kind == "layer":
        expected = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    else:
        expected = x / jnp.sqrt(jnp.square(x).mean(1, keepdims=True))
    np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-4)


def test_output_projections_start_at_zero_only_where_asked(key):
    modern, gpt2 = model_config("modern", "tiny"), model_config("gpt2", "tiny")
    assert not kernel_init(modern, output=True)(key, (4, 4)).any()
    drawn = kernel_init(gpt2, output=True)(jax.random.key(1), (200, 200))
    assert drawn.std() == pytest.approx(0.02 / 4**0.5, rel=0.02)


def test_cudnn_is_not_chosen_on_a_cpu():
    assert implementation(model_config("modern", "tiny", dtype="bfloat16")) == "xla"
    assert implementation(model_config("modern", attention="cudnn")) == "cudnn"


def test_dropout_keeps_the_mean_and_drops_its_share(key):
    x = jnp.linspace(-1.0, 2.0, 24).reshape(4, 6)
    once = lambda key: Dropout(0.25).apply({}, x, rngs={"dropout": key})
    drawn = jax.jit(jax.vmap(once))(jax.random.split(key, 4096))
    near = 5 * jnp.abs(x) * (1 / 3 / 4096) ** 0.5 + 1e-6  # five standard errors
    assert (jnp.abs(drawn.mean(0) - x) < near).all()
    assert (drawn == 0).mean() == pytest.approx(0.25, abs=0.01)
    np.testing.assert_array_equal(Dropout(0.25).apply({}, x), x)
    np.testing.assert_array_equal(once(key), once(key))
