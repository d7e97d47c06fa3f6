"""A Laplace posterior of the output head, kept up while the model trains.

The curvature (GGN, here the Fisher matrix, too) of a linear head z = W^T phi over n
tokens is sum phi phi^T (x) (diag p - p p^T). It is kept as n A (x) b I with
A = E[phi phi^T] and b = E[1 - sum p^2] / V, the mean of the diagonal of
E[diag p - p p^T]. So each of the V columns of W has the posterior precision
n b A + tau I, and each logit the variance

    v = phi^T (n b A + tau I)^-1 phi = leverage / b,
    leverage = phi^T (n A + (tau / b) I)^-1 phi.

Exact: for one output with a constant curvature b, that is for Bayesian linear
regression with noise variance 1 / b. Approximate: that tokens share one output factor
(Kronecker; Ritter et al. 2018), that all outputs are alike and apart (b I), that A and
b are moving averages while parameters move, and that a soft-cap of the logits is left
out, which makes the variance too small where logits are capped. So the order of the
tokens is worth more than the scale.

b takes labels from the model: E ||p - y||^2 is E[1 - sum p^2] then. The mean square of
the residuals of the data's labels is kept beside it, as the ratio of the two shows how
far the model is from calibrated; it is no curvature, since noise in the labels would
make the head seem better known.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from uets_jax.component import Component
from uets_jax.errors import UserError
from uets_jax.types import IGNORED, Metrics
from uets_jax.uncertainty.evidence import prior_precision

# (name, predicate, true_fun, false_fun, *operands) -> result of one of the functions
Branch = Callable[..., Any]

REFRESH = "laplace_refresh"
FLOOR = 1e-6  # least damping as a share of the trace of n A: float32 can factor it


@dataclasses.dataclass(frozen=True)
class LaplaceConfig:
    """What is kept of the output head, and how often it is brought up to date."""

    width: int
    """Features that the head reads, d."""
    outputs: int
    """Logits that it writes, V."""
    tau: float = 1.0
    """Prior precision of a weight, until the evidence chooses it."""
    decay: float = 0.98
    """Weight that A and b keep of their past with each call."""
    cap: float = 1e6
    """Most tokens that n counts: the head goes on changing, so variance stays."""
    refresh: int = 50
    """Calls between two factorisations; early ones are at calls 0, 1, 2, 4, 8, ..."""
    every: int = 8
    """One token in so many feeds A: the last of each group."""


class LaplaceState(NamedTuple):
    """The posterior.

    calls:      so far.
    tokens:     n, targets seen, up to the cap.
    mass:       tokens behind the averages, by their weights.
    second:     A, debiased.
    curvature:  b, debiased.
    error:      E ||p - y||^2 / V of the data's labels, debiased.
    tau:        prior precision of a weight.
    whitening:  inverse of the lower Cholesky factor of n A + (tau / b) I at the last
                refresh, so that a leverage is a plain product: a triangular solve
                per step may wait for the threads of a BLAS that is busy elsewhere.
    """

    calls: Int[Array, ""]
    tokens: Float[Array, ""]
    mass: Float[Array, ""]
    second: Float[Array, "d d"]
    curvature: Float[Array, ""]
    error: Float[Array, ""]
    tau: Float[Array, ""]
    whitening: Float[Array, "d d"]


def plain(
    name: str,
    predicate: Any,
    true_fun: Callable[..., Any],
    false_fun: Callable[..., Any],
    *operands: Any,
) -> Any:
    """`lax.cond` with a name that nobody reads."""
    return jax.lax.cond(predicate, true_fun, false_fun, *operands)


def laplace(config: LaplaceConfig, branch: Branch = plain) -> Component:
    """The posterior: `apply(state, features, token_losses, collision, targets, head)`.

    Inputs are by-products of a forward pass: what the head reads [B, L, D], losses in
    nats, sum p^2 and targets, all [B, L]; where the target is `IGNORED` or a number is
    not finite the token does not count. With a head [D, V] each refresh also sets tau
    to (nearly) the maximum of the evidence; without one, the default, it stays. The
    output is metrics: `taken/laplace_refresh`, 1 where the factors were refreshed, else
    0, `laplace_tau`, and `laplace_dispersion`, the mean square residual of the data's
    labels over that of the model's own: 1 where it is calibrated.

    Args:
      config: sizes and rates.
      branch: `uets_jax.measure.scopes.branch` where the FLOPs of both arms are counted;
        its name is `REFRESH`.

    Raises:
      UserError: for a value that can't work.
    """
    _check(config)

    def init(params: Any) -> LaplaceState:
        d, b = config.width, (1 - 1 / config.outputs or 1.0) / config.outputs
        zero = lambda: jnp.zeros((), jnp.float32)
        return LaplaceState(
            calls=jnp.zeros((), jnp.int32),
            tokens=zero(),
            mass=zero(),
            second=jnp.zeros((d, d)),
            curvature=jnp.float32(b),
            error=jnp.float32(b),
            tau=jnp.float32(config.tau),
            whitening=(b / config.tau) ** 0.5 * jnp.eye(d),
        )

    def apply(
        state: LaplaceState,
        features: Float[Array, "b l d"],
        token_losses: Float[Array, "b l"],
        collision: Float[Array, "b l"],
        targets: Int[Array, "b l"],
        head: Float[Array, "d v"] | None = None,
    ) -> tuple[Metrics, LaplaceState]:
        known, residual = targets != IGNORED, collision - 2 * jnp.exp(-token_losses) + 1
        state = _averaged(config, state, features, collision, residual, known)
        due = _due(state.calls, config.refresh)
        operands = (state,) if head is None else (state, head)
        anew = lambda *given: _refreshed(config.outputs, *given)
        tau, whitening = branch(
            REFRESH, due, anew, lambda s, *_: (s.tau, s.whitening), *operands
        )
        metrics = {
            f"taken/{REFRESH}": due.astype(jnp.int32),
            "laplace_tau": tau,
            "laplace_dispersion": state.error / state.curvature,
        }
        return metrics, state._replace(
            calls=state.calls + 1, tau=tau, whitening=whitening
        )

    return Component(init, apply)


def levers(
    state: LaplaceState, features: Float[Array, "b l d"], every: int
) -> Float[Array, "b m"]:
    """Leverage [B, L / every] of the last token of every `every`, row by row."""
    return leverage(state, features[:, every - 1 :: every])


def leverage(state: LaplaceState, phi: Float[Array, "*n d"]) -> Float[Array, "*n"]:
    """phi^T (n A + (tau / b) I)^-1 phi by one product, 2 d^2 FLOPs per token."""
    rows = phi.reshape(-1, phi.shape[-1]).astype(jnp.float32)
    whitened = jnp.matmul(rows, state.whitening.T, precision=jax.lax.Precision.HIGHEST)
    return (whitened * whitened).sum(-1).reshape(phi.shape[:-1])


def predictive_variance(
    state: LaplaceState, phi: Float[Array, "*n d"]
) -> Float[Array, "*n"]:
    """Posterior variance of each logit, the same for all outputs: leverage / b."""
    return leverage(state, phi) / state.curvature


def mean_field(
    logits: Float[Array, "*n v"], variance: Float[Array, "*n"]
) -> Float[Array, "*n v"]:
    """E[softmax(z)] for z ~ N(logits, v I), about softmax(logits / sqrt(1 + pi/8 v)).

    Source: MacKay 1992; for several outputs Lu et al. 2020, arXiv:2006.07584.
    """
    return jax.nn.softmax(logits / jnp.sqrt(1 + jnp.pi / 8 * variance[..., None]), -1)


def bald(
    variance: Float[Array, "*n"], collision: Float[Array, "*n"]
) -> Float[Array, "*n"]:
    """Mutual information of label and head in nats, to first order in the variance.

    H[E p] - E H[p] = 1/2 tr((diag p - p p^T) v I) = 1/2 v (1 - sum p^2); too large
    where v is not small (above about 1). With the leverage in the place of the variance
    it is b times that, so of the same order among tokens.
    """
    return 0.5 * variance * (1 - collision)


def _check(c: LaplaceConfig) -> None:
    for name in ("width", "outputs", "refresh", "every"):
        if getattr(c, name) < 1:
            raise UserError(f"laplace: {name}: must be at least 1, got {vars(c)[name]}")
    if not 0 <= c.decay < 1:
        raise UserError(f"laplace: decay: must be in [0, 1), got {c.decay}")
    for name in ("tau", "cap"):
        if not vars(c)[name] > 0:
            raise UserError(f"laplace: {name}: must be above 0, got {vars(c)[name]}")


def _averaged(
    c: LaplaceConfig,
    state: LaplaceState,
    features: Array,
    collision: Array,
    residual: Array,
    known: Bool[Array, "b l"],
) -> LaplaceState:
    """A, b and the error, averaged over tokens whose weight falls by `decay` a call."""
    every = min(c.every, known.shape[1])
    thin = lambda x: x[:, every - 1 :: every].reshape(-1, *x.shape[2:])
    phi, spread = thin(features).astype(jnp.float32), 1 - thin(collision)
    residual, sound = thin(residual), thin(known)
    sound &= jnp.isfinite(phi.sum(1) + spread + residual)
    phi = jnp.where(sound[:, None], phi, 0.0)
    outer = phi.T @ phi

    found = jnp.where(jnp.isfinite(jnp.trace(outer)), sound.sum(), 0)
    mass = c.decay * state.mass + found
    share, each = found / jnp.maximum(mass, 1e-6), jnp.maximum(found, 1)
    mean = lambda x: jnp.where(sound, x, 0.0).sum() / each / c.outputs
    mix = lambda old, new: jnp.where(share > 0, old + share * (new - old), old)
    tokens = jnp.where(found > 0, known.sum(), 0)
    return state._replace(
        tokens=jnp.minimum(state.tokens + tokens, c.cap),
        mass=mass,
        second=mix(state.second, outer / each),
        curvature=jnp.maximum(mix(state.curvature, mean(spread)), 1e-6 / c.outputs),
        error=mix(state.error, mean(residual)),
    )


def _due(calls: Int[Array, ""], refresh: int) -> Bool[Array, ""]:
    """At multiples of `refresh` and, as n grows fast at first, at powers of two."""
    return (calls % refresh == 0) | (calls & (calls - 1) == 0)


def _refreshed(
    outputs: int, state: LaplaceState, head: Array | None = None
) -> tuple[Array, Array]:
    """(tau, whitening) for the averages as they are."""
    data, b, tau = state.tokens * state.second, state.curvature, state.tau
    if head is not None:
        squares = jnp.square(head.astype(jnp.float32)).sum()
        best = prior_precision(jnp.linalg.eigvalsh(b * data), squares, outputs, tau)
        tau = jnp.where(jnp.isfinite(best), best, tau)
    damping = jnp.maximum(tau / b, FLOOR * jnp.trace(data))
    factor = jnp.linalg.cholesky(data + damping * jnp.eye(data.shape[0]))
    whitening = jax.lax.linalg.triangular_solve(
        factor, jnp.eye(len(factor)), left_side=True, lower=True
    )
    sound = jnp.isfinite(whitening).all()
    return tau, jnp.where(sound, whitening, state.whitening)
