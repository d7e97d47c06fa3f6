"""The bandit follows learning, leaves noise, keeps a floor, and meets its shares."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.curriculum.adaptive import adaptive, bins_of, candidate_logits

K, B, STEPS = 4, 16, 150
EVEN = jnp.arange(B) % K


@jax.jit
def scan(means, seed, knobs):
    """Shares [STEPS, K] of a bandit that sees all bins evenly, scattered by 0.5."""
    part = adaptive(K)
    scatter = 0.5 * jax.random.normal(jax.random.key(seed), (STEPS, B))
    step = lambda s, l: part.apply(s, EVEN, l, *knobs)[::-1]
    return jax.lax.scan(step, part.init({}), means[:, EVEN] + scatter)[1]


def run(curves, knobs=(0.3, 0.2, 2.0), seed=0):
    """Shares where the bins' mean losses at step t are `curves(t)` [K]."""
    means = [curves(np.float32(t)) for t in range(STEPS)]
    return np.asarray(scan(np.array(means, np.float32), seed, knobs))


def one_falls(t):
    """Bin 1 is learnt; 0 is known, 2 and 3 are noise of high loss."""
    return 1, 2 + 6 * np.exp(-t / 60), 9, 8


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_mass_goes_to_the_bin_that_is_learnt(seed):
    shares = run(one_falls, seed=seed)[30:]
    assert shares[:, 1].mean() > 0.7
    assert shares[:, [0, 2, 3]].mean() < 0.1


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_noise_alone_keeps_shares_about_equal(seed):
    flat = lambda t: (1, 4, 9, 8)
    shares = run(flat, knobs=(0.3, 0.2, 3.0), seed=seed)
    assert np.abs(shares.mean(0) - 0.25).max() < 0.12


def test_a_bin_that_is_forgotten_gets_mass():
    forgets = lambda t: (2 + 0.05 * t, 1, 1, 1)
    assert run(forgets)[50:, 0].mean() > 0.7


def test_mass_moves_on_when_learning_does():
    def curves(t):
        late = max(t - 75, 0)
        return 2 + 5 * np.exp(-t / 12), 2 + 5 * np.exp(-late / 30), 3, 4

    shares = run(curves)
    assert shares[20].argmax() == 0
    assert shares[-30:].mean(0).argmax() == 1


def test_no_share_falls_below_the_floor_and_all_sum_to_one():
    shares = run(one_falls, knobs=(0.01, 0.4, 2.0))
    assert shares.min() >= 0.4 / K - 1e-6
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(run(one_falls, knobs=(0.3, 1.0, 2.0)), 0.25, rtol=1e-5)


def test_knobs_are_traced():
    part = adaptive(K)
    compiled = jax.jit(chex.assert_max_traces(part.apply, 1))
    for knobs in ((0.3, 0.2, 2.0), (0.1, 0.5, 1.0)):
        compiled(part.init({}), EVEN, jnp.ones(B), *map(jnp.float32, knobs))


def test_drawing_by_the_logits_gives_the_shares(key):
    shares = jnp.array([0.5, 0.3, 0.15, 0.05])
    which = jnp.array([0] * 2 + [1] * 10 + [2] * 30 + [3] * 58)
    logits = candidate_logits(shares, which)
    drawn = which[jax.random.categorical(key, logits, shape=(20000,))]
    np.testing.assert_allclose(np.bincount(drawn) / 20000, shares, atol=0.012)
    exact = [float(jnp.exp(logits[which == i]).sum()) for i in range(K)]
    np.testing.assert_allclose(exact, shares, rtol=1e-5)


def test_bins_are_equal_parts_of_the_quantile():
    found = bins_of(jnp.array([0.0, 0.24, 0.25, 0.5, 0.99, 1.0]), 4)
    np.testing.assert_array_equal(found, [0, 0, 1, 2, 3, 3])
