"""The prior precision that the evidence prefers (MacKay 1992).

With the Laplace approximation at weights W, a prior N(0, 1 / tau) on each weight and,
for each of V outputs, a data precision with eigenvalues s_i,

    log evidence(tau) = log likelihood(W) - tau/2 ||W||^2
                        + V/2 sum_i log(tau / (s_i + tau)).

It is exact for Bayesian linear regression at the posterior mean of that tau; W does not
follow tau here, but training brings it along until the next call.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LEAST, MOST = 1e-6, 1e9  # bounds of tau: a head of zeros would send it to infinity
UPDATES = 8  # each at least halves the distance in log tau


def log_marginal_likelihood(
    log_likelihood: Float[Array, ""],
    spectrum: Float[Array, " d"],
    squared_norm: Float[Array, ""],
    outputs: int,
    tau: Float[Array, ""],
) -> Float[Array, ""]:
    """The log evidence in nats, above.

    Args:
      log_likelihood: of all data at W, nats.
      spectrum: eigenvalues of the data precision of one output.
      squared_norm: ||W||^2 over all outputs.
      outputs: V, how many share the spectrum.
      tau: prior precision of a weight.
    """
    volume = jnp.log(tau / (jnp.maximum(spectrum, 0.0) + tau)).sum()
    return log_likelihood - 0.5 * tau * squared_norm + 0.5 * outputs * volume


def prior_precision(
    spectrum: Float[Array, " d"],
    squared_norm: Float[Array, ""],
    outputs: int,
    tau: Float[Array, ""],
    updates: int = UPDATES,
) -> Float[Array, ""]:
    """The tau of highest evidence at given weights, from a start, kept within bounds.

    The fixed point is tau = gamma / ||W||^2 with gamma = V sum_i s_i / (s_i + tau), the
    number of well-determined weights. Each update goes half the way in log tau; the
    plain one could swing to and fro where the data say little.
    """
    spectrum = jnp.maximum(spectrum, 0.0)

    def update(tau: Array, _: None) -> tuple[Array, None]:
        determined = outputs * (spectrum / (spectrum + tau)).sum()
        aim = determined / jnp.maximum(squared_norm, 1e-12)
        aim = jnp.clip(aim, LEAST, MOST)
        return jnp.sqrt(tau) * jnp.sqrt(aim), None

    return jax.lax.scan(update, jnp.clip(tau, LEAST, MOST), length=updates)[0]
