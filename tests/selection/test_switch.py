"""Scoring goes off where it does not pay, on where it does, and is probed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.selection import switch as switches

PART = switches.switch(probe=4, every=16, band=1.5, rate=0.2)


def decisions(gains, cost=0.3):
    """Whether each step scores, for the gain that scoring would measure in it."""

    def step(state, gain):
        asked = switches.asks(state, 16)
        seen = jnp.where(asked, gain, 99.0)  # what is not measured is not read
        return PART.apply(state, seen, jnp.float32(cost))[1], asked

    run = jax.jit(lambda g: jax.lax.scan(step, PART.init(None), g))
    state, asked = run(jnp.asarray(gains, jnp.float32))
    return np.asarray(asked), state


def gain_of(scores):
    return float(switches.variance_gain(jnp.asarray(scores, jnp.float32)))


def test_constant_scores_switch_it_off_and_spread_ones_leave_it_on():
    constant = gain_of(np.full(64, 3.0))
    spread = gain_of(np.random.default_rng(0).lognormal(0, 1.2, 64))
    off, _ = decisions([constant] * 100)
    assert off[:4].all()
    assert not off[4:20].any()
    assert off.mean() < 0.3
    on, state = decisions([spread] * 100)
    assert on.all()
    assert float(state.mean) == pytest.approx(spread)


def test_a_probe_of_four_steps_comes_after_sixteen_and_ends_in_vain():
    asked, _ = decisions([1.0] * 64)
    assert np.flatnonzero(asked).tolist() == [*range(4), *range(20, 24), *range(40, 44),
                                              *range(60, 64)]  # fmt: skip


def test_it_goes_on_again_when_the_scores_begin_to_spread():
    asked, state = decisions([1.0] * 10 + [2.0] * 60)
    assert asked[20:].all()
    assert bool(state.on)


def test_between_the_two_thresholds_it_stays_as_it_is():
    """Cost 0.3: off below 1.3, on from 1.45; 1.4 is between."""
    on, _ = decisions([1.4] * 80)
    assert on.all()
    off, state = decisions([1.0] * 10 + [1.4] * 90)
    assert not bool(state.on)
    assert off[10:].mean() < 0.3


def test_one_low_measurement_does_not_switch_it_off():
    asked, _ = decisions([2.0] * 10 + [1.0] + [2.0] * 30)
    assert asked.all()


def test_a_gain_that_is_no_number_is_none():
    asked, state = decisions([np.nan] * 10)
    assert not asked[4:].any()
    assert np.isfinite(state.mean)


def test_free_scoring_pays_for_any_gain():
    assert bool(switches.pays(1.01, 0.0))
    assert not bool(switches.pays(1.0, 0.0))
    assert not bool(switches.pays(1.2, 0.3))


def test_tau_is_that_of_the_paper():
    s = np.random.default_rng(0).uniform(0, 4, 32)
    p = s / s.sum()
    u = np.full(32, 1 / 32)
    tau = (1 - ((p - u) ** 2).sum() / (p**2).sum()) ** -0.5
    assert gain_of(s) == pytest.approx(tau, rel=1e-5)
    assert gain_of([0.0, 0.0]) == 1.0
    assert gain_of([1.0, 0.0, 0.0, 0.0]) == pytest.approx(2.0)


def test_tau_squared_is_the_ratio_of_second_moments_of_the_weighted_gradients():
    """Uniform draws against draws in proportion to the norms, weighted 1 / (n p)."""
    g = np.random.default_rng(1).normal(size=(32, 5)) * np.linspace(0.1, 3, 32)[:, None]
    norms = np.linalg.norm(g, axis=1)
    p = norms / norms.sum()
    uniform = (norms**2).mean()
    weighted = (p * (norms / (32 * p)) ** 2).sum()
    assert gain_of(norms) ** 2 == pytest.approx(uniform / weighted, rel=1e-5)


def test_the_gain_of_a_choice_is_the_ratio_of_its_mean():
    chosen, offered = jnp.array([3.0, 5.0]), jnp.array([3.0, 5.0, 0.0, 0.0])
    assert float(switches.choice_gain(chosen, offered)) == 2.0
    assert float(switches.choice_gain(chosen, -offered)) == 1.0
