import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from uets_jax.uncertainty.evidence import log_marginal_likelihood, prior_precision

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 5)) @ np.diag([3.0, 2.0, 1.0, 0.3, 0.1])
SIGMA = 0.5
Y = X @ RNG.normal(size=5) * 0.7 + SIGMA * RNG.normal(size=60)


def posterior_mean(tau, y=Y):
    return np.linalg.solve(X.T @ X / SIGMA**2 + tau * np.eye(5), X.T @ y / SIGMA**2)


def log_normal(x, scale):
    return -0.5 * (x / scale) ** 2 - np.log(scale * np.sqrt(2 * np.pi))


def evidence(tau, y=Y):
    """log N(y; 0, sigma^2 I + X X^T / tau), the closed form."""
    covariance = SIGMA**2 * np.eye(60) + X @ X.T / tau
    return stats.multivariate_normal(np.zeros(60), covariance).logpdf(y)


SPECTRUM = jnp.asarray(np.linalg.eigvalsh(X.T @ X / SIGMA**2), jnp.float32)


@pytest.mark.parametrize("tau", [0.01, 1.0, 30.0])
def test_it_is_the_evidence_of_bayesian_linear_regression(tau):
    w = posterior_mean(tau)
    fit = log_normal(Y - X @ w, SIGMA).sum()
    norm = jnp.float32(w @ w)
    found = log_marginal_likelihood(
        jnp.float32(fit), SPECTRUM, norm, 1, jnp.float32(tau)
    )
    assert float(found) == pytest.approx(evidence(tau), abs=2e-3)


def test_several_outputs_share_one_spectrum():
    tau, targets = 2.0, [Y, Y[::-1].copy(), Y**2]
    w = [posterior_mean(tau, y) for y in targets]
    fit = sum(
        log_normal(y - X @ a, SIGMA).sum() for a, y in zip(w, targets, strict=True)
    )
    found = log_marginal_likelihood(
        jnp.float32(fit), SPECTRUM, jnp.float32(np.square(w).sum()), 3, jnp.float32(tau)
    )
    assert float(found) == pytest.approx(
        sum(evidence(tau, y) for y in targets), rel=1e-5
    )


@pytest.mark.parametrize("start", [1e-3, 1.0, 1e4])
def test_weights_that_follow_tau_reach_the_maximum_of_the_closed_form(start):
    tau = jnp.float32(start)
    for _ in range(40):
        w = posterior_mean(float(tau))
        tau = prior_precision(SPECTRUM, jnp.float32(w @ w), 1, tau, updates=2)
    grid = np.exp(np.linspace(-3, 5, 1601))
    best = grid[np.argmax([evidence(t) for t in grid])]
    assert float(tau) == pytest.approx(best, rel=0.01)


@pytest.mark.parametrize("scale", [1e-5, 1e-2, 1.0, 1e3])
def test_the_fixed_point_maximises_the_evidence_at_given_weights(scale):
    spectrum, norm, outputs = scale * SPECTRUM, jnp.float32(4.0), 7
    tau = prior_precision(spectrum, norm, outputs, jnp.float32(1.0), updates=40)
    slope = jax.grad(log_marginal_likelihood, argnums=4)
    zero = jnp.float32(0.0)
    assert abs(float(slope(zero, spectrum, norm, outputs, tau))) < 1e-4 * 4.0
    assert slope(zero, spectrum, norm, outputs, tau * 0.9) > 0
    assert slope(zero, spectrum, norm, outputs, tau * 1.1) < 0


@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e3])
def test_a_few_updates_get_near(scale):
    spectrum, norm = scale * SPECTRUM, jnp.float32(4.0)
    near, exact = (
        prior_precision(spectrum, norm, 7, jnp.float32(1.0), updates=n) for n in (8, 60)
    )
    assert abs(np.log(near / exact)) < abs(np.log(exact)) / 200 + 1e-6


def test_a_head_of_zeros_keeps_tau_finite():
    tau = prior_precision(SPECTRUM, jnp.float32(0.0), 64, jnp.float32(1.0), updates=99)
    assert 1e6 < float(tau) <= 1e9
    nothing = prior_precision(0 * SPECTRUM, jnp.float32(1.0), 64, jnp.float32(1.0))
    assert jnp.isfinite(nothing)
    assert nothing > 0
