import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.optim.norms import along, cosine, mean_square, safe_rsqrt, safe_sqrt, unit


def test_sizes_are_per_layer():
    x = jnp.asarray([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(mean_square(x), [12.5, 0.0])
    np.testing.assert_allclose(mean_square(unit(x)), [1.0, 0.0], rtol=1e-6)
    np.testing.assert_allclose(cosine(x, 2 * x), [1.0, 0.0], rtol=1e-6)
    np.testing.assert_allclose(cosine(x, -x), [-1.0, 0.0], rtol=1e-6)
    assert along(jnp.ones(2), jnp.ones((2, 3, 4))).shape == (2, 1, 1)
    assert mean_square(jnp.zeros((2, 0))).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("fn", [safe_sqrt, safe_rsqrt])
def test_roots_have_a_finite_slope_at_zero(fn):
    assert float(fn(jnp.zeros(()))) == 0
    assert float(jax.grad(fn)(jnp.zeros(()))) == 0
    x = jnp.asarray(0.25)
    expected = {safe_sqrt: 0.5, safe_rsqrt: 2.0}[fn]
    assert float(fn(x)) == pytest.approx(expected)


@pytest.mark.parametrize("size", [0.0, 1e-20, 1e-8])
def test_units_and_angles_have_finite_slopes(size):
    x = jnp.full((2, 3), size)
    total = lambda x: unit(x).sum() + cosine(x, x + 1).sum() + cosine(x, x).sum()
    assert jnp.isfinite(jax.grad(total)(x)).all()
