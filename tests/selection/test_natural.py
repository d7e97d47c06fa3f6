"""The band of natural text, found without labels."""

import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.selection.natural import gate, naturalness, typical_gain


def test_too_little_and_too_much_are_equally_unnatural():
    found = naturalness(np.array([1.0, 0.5, 2.0, 0.0, -1.0]), 1.0)
    np.testing.assert_allclose(found[:3], [0, -np.log(2), -np.log(2)])
    assert found[3] == found[4] < -6
    traced = naturalness(jnp.asarray([1.0, 0.5, 2.0, 0.0, -1.0]), 1.0)
    np.testing.assert_allclose(traced, found, rtol=1e-5)


@pytest.mark.parametrize("noise", [0, 100, 1000])
def test_the_typical_gain_does_not_depend_on_how_much_noise_there_is(noise):
    rng = np.random.default_rng(0)
    natural, disorder = rng.normal(1.2, 0.2, 500), rng.normal(0, 0.2, noise)
    gains = np.concatenate([natural, disorder]).astype(np.float32)
    assert abs(typical_gain(gains) - 1.2) < 0.05


def test_a_pool_without_order_is_refused():
    with pytest.raises(UserError, match="no text is in order"):
        typical_gain(np.array([-1.0, -0.5, 0.2], np.float32))


def test_the_gate_puts_the_unnatural_behind_in_order_of_naturalness():
    scores = np.array([5.0, -2.0, 9.0, 1.0, 7.0])
    gated = gate(scores, np.array([-0.1, -0.9, -3.0, -0.5, -1.0]))
    assert np.argsort(-gated).tolist() == [0, 3, 1, 4, 2]
    np.testing.assert_array_equal(gated[[0, 1, 3]], scores[[0, 1, 3]])


def test_one_text_without_order_does_not_hide_the_order_of_the_others():
    gains = np.array([-2.0, *np.linspace(1.0, 2.0, 101)])
    assert typical_gain(gains) == pytest.approx(1.505)
