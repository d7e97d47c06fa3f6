"""Small networks: shapes, a closed form, patches that make a convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.meta.nets import conv, mlp


def test_an_mlp_is_its_formula(key):
    net = mlp((5, 3), "tanh")
    assert net.name == "mlp-5-3-tanh"
    params, x = net.init(key), np.linspace(-1, 1, 128).reshape(2, 64)
    layers = [jax.tree.map(np.asarray, params[f"layer{i}"]) for i in range(3)]
    hidden = x
    for layer in layers[:-1]:
        hidden = np.tanh(hidden @ layer["w"] + layer["b"])
    expected = hidden @ layers[-1]["w"] + layers[-1]["b"]
    found = net.logits(params, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_layer_is_a_convolution_with_stride_after_the_first(key):
    """Against XLA's own, with kernels in the order of the patches."""
    net = conv((2, 3), "relu")
    assert net.name == "conv-2-3-relu"
    params = net.init(key)
    params = jax.tree.map(lambda p: p + 0.1, params)  # biases, too
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 64)), jnp.float32)
    grid = x.reshape(2, 8, 8, 1)
    for i, stride in enumerate((1, 2)):
        layer = params[f"conv{i}"]
        kernel = layer["w"].reshape(3, 3, grid.shape[-1], -1)
        grid = jax.lax.conv_general_dilated(
            grid,
            kernel,
            (stride, stride),
            ((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        grid = jax.nn.relu(grid + layer["b"].reshape(1, 1, 1, -1))
    assert grid.shape == (2, 4, 4, 3)
    expected = grid.mean((1, 2)) @ params["head"]["w"] + params["head"]["b"][None]
    np.testing.assert_allclose(net.logits(params, x), expected, rtol=1e-4, atol=1e-5)


def test_weights_have_the_variance_of_their_inputs(key):
    params = mlp((400,)).init(key)
    np.testing.assert_allclose(params["layer0"]["w"].std(), 1 / 8, rtol=0.02)
    np.testing.assert_allclose(params["layer1"]["w"].std(), 1 / 20, rtol=0.05)
    assert not params["layer0"]["b"].any()


@pytest.mark.parametrize("make", [mlp, conv])
def test_an_unknown_activation_is_named(make):
    with pytest.raises(UserError, match="did you mean 'relu'"):
        make((8,), "rellu")
