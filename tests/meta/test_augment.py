"""Augmentation keeps the function; its draws have the ranges and shares they name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.meta.augment import PLAIN, AugmentConfig, augmentation, stored, used

LIKE = {"a": jnp.ones((3, 2)), "b": jnp.ones(4)}


def draws(config, n=2000):
    keys = jax.random.split(jax.random.key(0), n)
    draw = lambda key: augmentation(config, key, LIKE, 16, 100, 10)
    return jax.jit(jax.vmap(draw))(keys)


def test_ranges_and_shares():
    config = AugmentConfig(scale=2.0, tensor_scale=3.0, rate=3.0, horizon=1.5, long=0.1)
    drawn = draws(config)
    assert set(np.unique(np.asarray(drawn.horizon) % 10)) == {0}
    long = np.asarray(drawn.horizon) == 200
    assert 0.07 < long.mean() < 0.13
    assert np.asarray(drawn.horizon)[~long].min() >= 60
    assert np.asarray(drawn.horizon)[~long].max() <= 150
    rate = np.log(np.asarray(drawn.rate))
    assert abs(rate.mean()) < 0.05
    assert abs(rate).max() <= np.log(3) + 1e-5
    np.testing.assert_allclose(rate.std(), np.log(3) / 3**0.5, rtol=0.05)
    assert 4 <= int(drawn.rows.min()) < int(drawn.rows.max()) <= 16
    a, b = (np.log(np.asarray(drawn.scales[k])) for k in "ab")
    assert abs(a).max() <= np.log(6) + 1e-5
    assert np.corrcoef(a, b)[0, 1] > 0.15  # the global factor


def test_stored_parameters_are_used_as_they_were():
    drawn = jax.tree.map(lambda x: x[0], draws(AugmentConfig(init=1.0), 1))
    back = used(stored(LIKE, drawn), drawn)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), back, LIKE)


def test_plain_changes_nothing():
    drawn = draws(PLAIN, 8)
    for leaf in jax.tree.leaves((drawn.scales, drawn.init, drawn.rate)):
        np.testing.assert_array_equal(leaf, 1.0)
    np.testing.assert_array_equal(drawn.horizon, 100)
    np.testing.assert_array_equal(drawn.rows, 16)


def test_only_matrices_begin_larger():
    drawn = jax.tree.map(lambda x: x[0], draws(PLAIN, 1))._replace(
        init=jnp.asarray(3.0)
    )
    first = stored(LIKE, drawn)
    np.testing.assert_array_equal(first["a"], 3.0)
    np.testing.assert_array_equal(first["b"], 1.0)


def test_a_horizon_is_at_least_one_window():
    drawn = augmentation(PLAIN, jax.random.key(0), LIKE, 16, 3, 10)
    assert int(drawn.horizon) == 10


@pytest.mark.parametrize("name", ["scale", "tensor_scale", "rate", "init", "horizon"])
def test_a_factor_below_one_is_named(name):
    with pytest.raises(UserError, match=rf"augment\.{name}: a factor of 1 or more"):
        AugmentConfig(**{name: 0.5})


@pytest.mark.parametrize(("name", "value"), [("batch", 0.0), ("long", 1.5)])
def test_a_share_out_of_range_is_named(name, value):
    with pytest.raises(UserError, match=rf"augment\.{name}: a share in"):
        AugmentConfig(**{name: value})
