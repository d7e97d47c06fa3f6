"""The running quantile: its share, drift, any units, and what is no score."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.selection.threshold import threshold

PART = threshold()


@jax.jit
def run(scores, share):
    """All calls in one scan: (accepted [calls, n], thetas [calls])."""

    def step(state, row):
        accepted, state = PART.apply(state, row, share)
        return state, (accepted, state.theta)

    return jax.lax.scan(step, PART.init(None), scores)[1]


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("units", [(0.0, 1e-4), (-300.0, 0.5), (1e4, 50.0)])
def test_it_accepts_the_wanted_share_in_any_units(key, share, units):
    shift, scale = units
    scores = shift + scale * jax.random.normal(key, (600, 32))
    accepted, thetas = run(scores, share)
    assert float(accepted[100:].mean()) == pytest.approx(share, abs=0.02)
    quantile = float(jnp.quantile(scores, 1 - share))
    assert abs(float(thetas[300:].mean()) - quantile) < 0.1 * scale


def test_it_accepts_within_a_few_calls_and_follows_a_drift(key):
    drift = jnp.linspace(0, 1, 400)[:, None]
    scores = drift + jax.random.normal(key, (400, 64))
    accepted, _ = run(scores, 0.2)
    assert float(accepted[5:40].mean()) == pytest.approx(0.2, abs=0.06)
    assert float(accepted[200:].mean()) == pytest.approx(0.2, abs=0.04)


def test_the_first_step_is_the_formula():
    part, scores = threshold(0.1), jnp.asarray([1.0, 2.0, 3.0, 10.0])
    accepted, state = jax.jit(part.apply)(part.init(None), scores, 0.2)
    assert accepted.tolist() == [False, False, False, True]  # above the mean, 4
    assert float(state.scale) == 3.0
    assert float(state.theta) == pytest.approx(4 + 3 * 3.0 * (0.25 - 0.2))
    accepted, after = jax.jit(part.apply)(state, jnp.full(4, 9.0), 0.2)
    assert accepted.all()
    assert float(after.scale) == pytest.approx(3 + 0.5 * (4.55 - 3))
    expected = 4.45 + 1.5 * float(after.scale) * 0.8
    assert float(after.theta) == pytest.approx(expected)


def test_what_is_no_score_is_left_out():
    part = threshold()
    odd = jnp.asarray([jnp.nan, 1.0, 2.0, 3.0, jnp.nan])
    accepted, state = jax.jit(part.apply)(part.init(None), odd, 0.5)
    assert accepted.tolist() == [False, False, False, True, False]
    _, plain = jax.jit(part.apply)(part.init(None), odd[1:4], 0.5)
    chex.assert_trees_all_close(state, plain)
    accepted, after = jax.jit(part.apply)(state, jnp.full(3, jnp.nan), 0.5)
    chex.assert_trees_all_equal(after, state)
    assert not accepted.any()
    barred = jnp.asarray([-jnp.inf, -jnp.inf, 9.0, 9.0])
    accepted, after = jax.jit(part.apply)(state, barred, 0.5)
    assert accepted.tolist() == [False, False, True, True]
    assert np.isfinite(float(after.theta))
    assert float(after.theta) == float(state.theta)  # half of all were above


@pytest.mark.parametrize("gain", [0.0, -1.0, 1.5])
def test_a_gain_out_of_range_is_named(gain):
    with pytest.raises(UserError, match=r"threshold\.gain"):
        threshold(gain)
