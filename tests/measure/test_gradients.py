import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.measure.gradients import (
    Noise,
    layer_rms,
    noise_scale,
    saturation,
    two_halves,
)


def test_rms_is_over_all_entries_of_a_layer():
    blocks = {
        "w": jnp.arange(12.0).reshape(2, 3, 2),
        "norm": {"scale": jnp.array([[5.0], [6.0]])},
        "mix": jnp.array([7.0, 8.0]),
    }
    for layer in range(2):
        own = [np.asarray(x)[layer].ravel() for x in jax.tree.leaves(blocks)]
        exact = np.sqrt(np.square(np.concatenate(own)).mean())
        np.testing.assert_allclose(layer_rms(blocks)[layer], exact, rtol=1e-6)


def test_saturation_counts_decades_and_is_finite():
    params, grads = jnp.array([1.0, 1.0, 0.0]), jnp.array([0.1, 1e-3, 0.0])
    np.testing.assert_allclose(saturation(params, grads), [1, 3, 0], atol=1e-5)
    assert jnp.isfinite(saturation(jnp.ones(1), jnp.zeros(1))).all()


def test_estimates_are_unbiased_on_a_quadratic(key):
    """loss_b = |w - z_b|^2 / 2 with z_b ~ N(0, diag(v)): G = w, tr(S) = sum v."""
    w, v = jnp.array([0.6, -0.8, 0.5]), jnp.array([1.0, 4.0, 0.25])
    rows = 16
    z = jax.random.normal(key, (20_000, 2, rows // 2, 3)) * jnp.sqrt(v).reshape(
        1, 1, 1, 3
    )
    grads = w.reshape(1, 1, 3) - z.mean(2)
    halves = lambda g: {"w": g}
    found = jax.vmap(lambda g: two_halves(halves(g[0]), halves(g[1]), rows))(grads)
    mean = Noise(found.noise.mean(), found.signal.mean())
    np.testing.assert_allclose(mean.noise, v.sum(), rtol=0.03)
    np.testing.assert_allclose(mean.signal, w @ w, rtol=0.03)
    np.testing.assert_allclose(noise_scale(mean), v.sum() / (w @ w), rtol=0.05)


def test_equals_the_estimators_of_the_paper():
    """|G|^2 and tr(S) from the norms at two batch sizes, appendix A.1."""
    g1, g2 = jnp.array([1.0, 2.0]), jnp.array([2.0, -0.5])
    big, small = 16, 8
    at_big, at_small = ((g1 + g2) ** 2).sum() / 4, (g1 @ g1 + g2 @ g2) / 2
    signal = (big * at_big - small * at_small) / (big - small)
    noise = (at_small - at_big) / (1 / small - 1 / big)
    np.testing.assert_allclose(two_halves(g1, g2, 16), (noise, signal), rtol=1e-6)


@pytest.mark.parametrize("signal", [0.0, -1.0])
def test_a_hidden_signal_is_infinite_noise(signal):
    assert noise_scale(Noise(jnp.ones(()), jnp.asarray(signal))) == jnp.inf
