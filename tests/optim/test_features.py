import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.optim import features
from uets_jax.optim.directions import Moments, advance
from uets_jax.optim.features import NAMES
from uets_jax.optim.leaves import describe

LEAVES = {"up": jnp.ones((2, 4, 6))}
AXES = {"matrices": lambda p: {"up": ((1,), (2,))}}


def losses(*values):
    state = features.no_losses()
    for value in values:
        state = features.see_loss(state, jnp.float32(value))
    return state


def rows(scale=1.0, gradient=1.0):
    """[2, F] after two gradients, weights times `scale`."""
    rng = np.random.default_rng(0)
    draw = lambda s: s * jnp.asarray(rng.normal(size=(2, 4, 6)), jnp.float32)
    [leaf] = describe(LEAVES, **AXES)
    zero = jnp.zeros((2, 4, 6))
    moments = Moments(zero, zero, jnp.zeros(2), jnp.zeros(2))
    moments = advance(moments, draw(gradient), jnp.full(2, 0.9), jnp.full(2, 0.95))
    given = (draw(gradient), draw(scale), moments, draw(0.2 * scale))
    start = jnp.full(2, 0.5 * scale)
    common = features.shared(None, None, None, jnp.asarray(0))
    return features.of_leaf(leaf, *given, start, common)


def test_there_is_a_name_for_every_column_and_all_are_of_size_one():
    x = rows()
    assert x.shape == (2, len(NAMES)) == (2, 25)
    assert float(jnp.abs(x).max()) < 3
    assert features.shared(None, None, None, jnp.asarray(0)).shape == (12,)


def test_weights_gradients_and_losses_have_no_scale():
    same = rows(10.0, 10.0)
    np.testing.assert_allclose(same, rows(), atol=1e-5)
    trend = features.loss_trend(losses(*range(20, 5, -1)))
    scaled = features.loss_trend(losses(*(3.0 * v for v in range(20, 5, -1))))
    np.testing.assert_allclose(scaled, trend, rtol=1e-4)
    assert (trend < 1e-6).all()
    assert float(trend[0]) < 0  # it falls


def test_the_first_step_and_zero_weights_are_neutral_and_finite():
    [leaf] = describe(LEAVES, **AXES)
    zero = jnp.zeros((2, 4, 6))
    moments = Moments(zero, zero, jnp.zeros(2), jnp.zeros(2))
    common = features.shared(None, None, None, jnp.asarray(0))

    def total(g):
        x = features.of_leaf(leaf, g, zero, moments, zero, jnp.zeros(2), common)
        return x.sum(), x

    slope, x = jax.grad(total, has_aux=True)(zero)
    assert jnp.isfinite(slope).all()
    dead = [NAMES.index(n) for n in ("gradient_momentum", "signal_to_noise", "rate")]
    assert not x[:, dead].any()
    assert not x[:, NAMES.index("progress_known")].any()


def test_depth_role_and_fans_are_those_of_the_leaf():
    x = rows()
    of = lambda name: np.asarray(x[:, NAMES.index(name)])
    np.testing.assert_allclose(of("depth"), [0.0, 1.0])
    assert of("hidden").all()
    assert not of("head").any()
    assert of("fan_out")[0] > of("fan_in")[0]


def test_progress_and_rate_are_seen():
    given = features.shared(None, jnp.float32(0.5), jnp.float32(0.1), jnp.asarray(19))
    assert float(given[3]) == pytest.approx(0.0, abs=1e-6)  # the knot at 0.5
    assert float(given[6]) == 1
    assert float(given[7]) == pytest.approx(np.log(20) / 5)
    assert float(given[-1]) == pytest.approx(np.log(0.1) / 5)


def reverted(values, ratio=1.3):
    """At how many of the losses the nominal rule would take over."""
    state, found = features.no_losses(), 0
    step = jax.jit(features.see_loss)
    for value in values:
        state = step(state, jnp.float32(value))
        found += bool(features.diverges(state, ratio))
    return found


def test_a_loss_that_stays_higher_is_no_divergence_for_ever():
    rng = np.random.default_rng(0)
    noise = 0.02 * rng.normal(size=350)
    steps = np.where(np.arange(350) < 50, 1.0, 1.6) + noise
    assert 0 < reverted(steps) < 60


def test_noise_around_zero_is_no_divergence():
    rng = np.random.default_rng(0)
    assert reverted(0.1 * rng.normal(size=300)) < 15
    assert reverted(1e-3 * np.exp(rng.normal(size=300))) < 15


def test_a_rise_of_the_loss_is_a_divergence_once_warm():
    falling = [3.0 - 0.1 * i for i in range(15)]
    assert not features.diverges(losses(*falling), 1.3)
    assert not features.diverges(losses(1.0, 5.0, 9.0), 1.3)
    assert features.diverges(losses(*falling, 9.0, 9.0), 1.3)
    assert not features.diverges(losses(*falling, *falling[::-1]), 3.0)
    negative = [-1.0 - 0.01 * i for i in range(15)]
    assert not features.diverges(losses(*negative), 1.3)
    assert features.diverges(losses(*negative, 2.0, 2.0), 1.3)
