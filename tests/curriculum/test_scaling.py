"""Known laws are recovered, flat curves get nothing, and memory is bounded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.curriculum.scaling import (
    History,
    Laws,
    fit,
    marginal_gain,
    record,
    scaling,
)
from uets_jax.measure import scopes

K = 3
KNOWN = Laws(
    alpha=jnp.array([0.3, 0.6, 0.12]),
    beta=jnp.array([20.0, 100.0, 8.0]),
    eps=jnp.array([1.5, 2.0, 0.4]),
    trust=jnp.ones(3),
)


def loss_at(laws: Laws, n):
    """[K, P] at tokens [P]."""
    column = lambda x: x[:, None]
    powers = n[None, :] ** -column(laws.alpha)
    return column(laws.eps) + column(laws.beta) * powers


def history_of(curve, points=40, noise=0.0, seed=0) -> History:
    """Losses at 2^10 .. 2^30 tokens, slots of as many tokens as a doubling has."""
    n = jnp.logspace(10, 30, points, base=2.0)
    loss = curve(n)
    loss += noise * jax.random.normal(jax.random.key(seed), loss.shape)
    tokens = jnp.broadcast_to(n * 0.3, loss.shape)
    return History(tokens, tokens * loss, tokens * jnp.log(n)[None, :])


@jax.jit
def compiled_fit(history: History) -> Laws:
    return fit(history)


def fitted(history: History) -> Laws:
    """`fit` with empty slots behind, so that all tests share one executable."""
    empty = 64 - history.tokens.shape[1]
    pad = lambda x: jnp.pad(x, ((0, 0), (0, empty)))
    return compiled_fit(jax.tree.map(pad, history))


def test_known_laws_are_recovered():
    found = fitted(history_of(lambda n: loss_at(KNOWN, n)))
    np.testing.assert_allclose(found.alpha, KNOWN.alpha, rtol=0.03)
    np.testing.assert_allclose(found.eps, KNOWN.eps, rtol=0.05)
    np.testing.assert_allclose(found.trust, 1, atol=1e-3)
    n = jnp.full(3, 2.0**28)
    exact = KNOWN.alpha * KNOWN.beta * n ** (-KNOWN.alpha - 1)
    np.testing.assert_allclose(marginal_gain(found, n), exact, rtol=0.05)


def test_the_regression_equals_a_dense_search():
    curve = lambda n: loss_at(KNOWN, n)
    history = history_of(curve, points=12, noise=0.05)
    found = fitted(history)
    loss, log_n = history.loss / history.tokens, history.log_n / history.tokens
    for k in range(3):
        y, w = np.asarray(loss[k], np.float64), np.sqrt(np.asarray(history.tokens[k]))
        x = np.exp(-np.geomspace(0.02, 2, 400)[:, None] * np.asarray(log_n[k], float))
        error = lambda p, y=y, w=w: (w * (y - p) ** 2).sum(-1)
        eps = np.linspace(0, y.min() * 1.1, 300)[None, :, None]
        x = x[:, None, :]
        beta = np.maximum((w * x * (y - eps)).sum(-1) / (w * x * x).sum(-1), 0)
        dense = error(eps + beta[..., None] * x).min()
        mine = found.eps[k] + found.beta[k] * np.exp(-found.alpha[k] * log_n[k])
        assert error(np.asarray(mine, np.float64)) <= dense * 1.01


@pytest.mark.parametrize("seed", [0, 1])
def test_a_flat_or_rising_curve_has_next_to_no_gain(seed):
    def curve(n):
        flat, rising = 5 + 0 * n, 3 + 0.05 * jnp.log(n)
        return jnp.stack([loss_at(KNOWN, n)[0], flat, rising])

    found = fitted(history_of(curve, noise=0.02, seed=seed))
    gain = marginal_gain(found, jnp.full(3, 2.0**30))
    assert gain[1] < 0.05 * gain[0]
    assert gain[2] == 0


def test_a_short_history_is_not_trusted():
    part = fitted(history_of(lambda n: loss_at(KNOWN, n), points=3))
    empty = fitted(
        jax.tree.map(lambda x: 0 * x, history_of(lambda n: loss_at(KNOWN, n)))
    )
    np.testing.assert_array_equal(part.trust, 0)
    assert np.isfinite(np.asarray(empty)).all()
    np.testing.assert_array_equal(empty.trust, 0)


def test_losses_land_in_the_slots_of_their_tokens():
    none = jnp.zeros((2, 8))
    history, seen = History(none, none, none), jnp.zeros(2)
    for _ in range(12):
        seen += jnp.array([100.0, 0.0])
        new, total = jnp.array([100.0, 0.0]), jnp.array([250.0, 0.0])
        history = record(history, seen, new, total, 1.0, 200.0)
    # bin 0 is counted from 200 tokens on: [200, 400), [400, 800), [800, 1600)
    np.testing.assert_array_equal(history.tokens[0, :4], [200, 400, 500, 0])
    np.testing.assert_array_equal(history.loss[0, :3], [500, 1000, 1250])
    np.testing.assert_array_equal(history.tokens[1], 0)
    middle = np.log([150, 250]).mean()
    assert history.log_n[0, 0] / 200 == pytest.approx(middle, rel=1e-5)


def simulate(part, laws, calls, prior=(1 / 3,) * 3, noise=0.0):
    """Draws 8 rows of 128 tokens per call by the shares; returns shares [calls, K]."""
    tokens, prior = jnp.full(8, 128.0), jnp.array(prior)

    def step(carry, key):
        state, n = carry
        draw, scatter = jax.random.split(key)
        which = jax.random.categorical(draw, jnp.log(state.shares), shape=(8,))
        n += jax.nn.one_hot(which, K).sum(0) * 128
        loss = jnp.diagonal(loss_at(laws, jnp.maximum(n, 1.0)))[which]
        loss += noise * jax.random.normal(scatter, (8,))
        (shares, taken), state = part.apply(state, which, loss, tokens, prior)
        return (state, n), (shares, taken)

    keys = jax.random.split(jax.random.key(0), calls)
    run = jax.jit(lambda: jax.lax.scan(step, (part.init({}), jnp.zeros(K)), keys))
    (state, _), (shares, taken) = run()
    return np.asarray(shares), np.asarray(taken), state


def test_shares_leave_flat_bins_and_keep_the_floor():
    noisy = KNOWN._replace(beta=jnp.array([20.0, 0.0, 0.0]), eps=jnp.array([1.5, 6, 2]))
    shares, _, _ = simulate(scaling(K, refit_every=50), noisy, 600, noise=0.3)
    np.testing.assert_allclose(shares[:49], 1 / 3, rtol=1e-4)
    assert shares[-1, 0] > 0.9
    assert shares.min() > 0.0095
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)


def test_the_better_law_gets_more_and_the_prior_counts():
    part = scaling(K, refit_every=50)
    two = KNOWN._replace(
        alpha=jnp.array([0.3, 0.3, 0.3]),
        beta=jnp.array([40.0, 20.0, 20.0]),
    )
    shares, _, _ = simulate(part, two, 400)
    assert shares[-1, 0] > 1.2 * shares[-1, 1:].max()
    leaning, _, _ = simulate(part, two, 400, prior=(0.1, 0.1, 0.8))
    assert leaning[-1, 2] > leaning[-1, 0]


def test_the_refit_is_reported_and_rare():
    _, taken, state = simulate(scaling(K, refit_every=50), KNOWN, 120)
    np.testing.assert_array_equal(np.flatnonzero(taken), [49, 99])
    assert state.history.tokens.shape == (K, 64)


def test_a_branch_of_the_ledger_takes_the_place_of_cond():
    inputs = (jnp.arange(3), jnp.ones(3), jnp.full(3, 64.0), jnp.full(3, 1 / 3))
    plain, counted = scaling(K), scaling(K, branch=scopes.branch)
    text = str(jax.make_jaxpr(counted.apply)(counted.init({}), *inputs))
    assert "cond" in text
    left, right = (jax.jit(p.apply)(p.init({}), *inputs)[0] for p in (plain, counted))
    np.testing.assert_array_equal(left[0], right[0])
