"""Data mixing by power laws that are fitted to the loss of every bin while it trains.

After ADO (Jiang et al. 2024, arXiv:2410.11820): the loss of bin k after n of its own
tokens is modelled as

    L_k(n) = eps_k + beta_k n^-alpha_k,

and data is drawn where the next token lowers it most: -dL/dn = alpha (L - eps) / n.
Differences: a fixed grid and not L-BFGS, history in log-spaced slots and not whole, and
a gain is scaled by the adjusted R^2 of its fit, so that a flat curve, for which the
power law explains nothing, gets no mass beyond the floor.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from uets_jax.component import Component

ALPHAS = (0.02, 2.0)  # searched exponents
GRID = 48  # exponents per search

Branch = Callable[..., Any]  # (name, predicate, true_fun, false_fun, *operands)


class History(NamedTuple):
    """Losses of each bin in slots that are equally wide in log2 of its tokens.

    All are sums over the tokens of a slot.
    """

    tokens: Float[Array, "k slots"]
    loss: Float[Array, "k slots"]  # nats
    log_n: Float[Array, "k slots"]  # natural log of the bin's tokens until then


class Laws(NamedTuple):
    """L = eps + beta n^-alpha of every bin, and how much of its curve that explains.

    trust: adjusted R^2 in [0, 1] against a constant loss; 0 before four slots.
    """

    alpha: Float[Array, " k"]
    beta: Float[Array, " k"]
    eps: Float[Array, " k"]
    trust: Float[Array, " k"]


class ScalingState(NamedTuple):
    """O(bins slots), however long the stream is."""

    calls: Int[Array, ""]
    seen: Float[Array, " k"]  # tokens of each bin
    history: History
    laws: Laws
    credit: Float[Array, " k"]  # moving average of the shares
    shares: Float[Array, " k"]


def plain_cond(
    name: str, predicate: Any, true_fun: Any, false_fun: Any, *operands: Any
) -> Any:
    """`lax.cond`; `measure.scopes.branch` in its place charges arms by their runs."""
    return jax.lax.cond(predicate, true_fun, false_fun, *operands)


def scaling(
    bins: int,
    refit_every: int = 200,
    slots: int = 64,
    per_octave: float = 2.0,
    burn_in: float = 1024.0,
    branch: Branch = plain_cond,
    name: str = "scaling_refit",
) -> Component:
    """Target share of each bin in what is trained on.

    apply: (state, bin of each row [B], losses [B] in nats, tokens [B], prior [K],
    smoothing, floor) -> ((shares [K], refitted), state); `refitted` is 0 or 1, whether
    the branch of that `name` was taken. With credit h, the average of past shares,

        target ~ prior trust alpha (L - eps) / n sqrt(h),  the prior if that is 0
        shares <- (1 - smoothing) shares + smoothing target, and at least `floor`

    Args:
      refit_every: calls between fits; shares move between them, too.
      burn_in: tokens of a bin before its history begins.
    """

    def init(params: Any) -> ScalingState:
        zeros, none = jnp.zeros(bins), jnp.zeros((bins, slots))
        equal, calls = jnp.full(bins, 1.0 / bins), jnp.zeros((), jnp.int32)
        laws, history = Laws(*(zeros,) * 4), History(*(none,) * 3)
        return ScalingState(calls, zeros, history, laws, equal, equal)

    def apply(
        state: ScalingState,
        which: Int[Array, " b"],
        losses: Float[Array, " b"],
        tokens: Float[Array, " b"],
        prior: Float[Array, " k"],
        smoothing: float | Float[Array, ""] = 0.1,
        floor: float | Float[Array, ""] = 0.01,
    ) -> tuple[tuple[Float[Array, " k"], Int[Array, ""]], ScalingState]:
        member = jax.nn.one_hot(which, bins) * tokens[:, None]
        new, total = member.sum(0), losses @ member
        seen = state.seen + new
        history = record(state.history, seen, new, total, per_octave, burn_in)
        calls = state.calls + 1
        due = calls % refit_every == 0
        refit, keep = lambda h, laws: fit(h), lambda h, laws: laws
        laws = branch(name, due, refit, keep, history, state.laws)
        gain = marginal_gain(laws, seen) * prior * jnp.sqrt(state.credit)
        idle = gain.sum() <= 0
        target = jnp.where(idle, prior, gain)
        target = target / target.sum()
        shares = state.shares + smoothing * (target - state.shares)
        shares = jnp.maximum(shares, floor)
        shares = shares / shares.sum()
        credit = state.credit + 0.1 * (shares - state.credit)
        after = ScalingState(calls, seen, history, laws, credit, shares)
        return (shares, due.astype(jnp.int32)), after

    return Component(init, apply)


def record(
    history: History,
    seen: Float[Array, " k"],
    new: Float[Array, " k"],
    total: Float[Array, " k"],
    per_octave: float,
    burn_in: float,
) -> History:
    """Adds to each bin's slot its `new` tokens, whose losses sum to `total`."""
    slots = history.tokens.shape[1]
    place = jnp.floor(jnp.log2(jnp.maximum(seen, 1.0) / burn_in) * per_octave)
    counted = (place >= 0) & (new > 0)
    slot = jnp.clip(place, 0, slots - 1).astype(jnp.int32)
    here = jax.nn.one_hot(slot, slots) * counted[:, None]
    log_n = jnp.log(jnp.maximum(seen - new / 2, 1.0))
    sums = (new, total, new * log_n)
    return History(*(h + here * s[:, None] for h, s in zip(history, sums, strict=True)))


def fit(history: History) -> Laws:
    """The power law of each bin with the least squared error, 0 <= eps, 0 <= beta.

    Slots weigh by the root of their tokens, between equal slots and equal tokens. For
    every alpha of a log-spaced grid, and of a second one around the best, eps and beta
    are a linear regression. Some 40 bins slots GRID operations.
    """
    known = history.tokens > 0
    number = jnp.maximum(history.tokens, 1.0)
    loss, log_n = history.loss / number, history.log_n / number
    weight = jnp.sqrt(history.tokens)
    weight = weight / jnp.maximum(weight.sum(1, keepdims=True), 1e-12)
    laws, error = jax.vmap(_search)(weight, loss, log_n)
    mean = (weight * loss).sum(1, keepdims=True)
    flat = (weight * jnp.square(loss - mean)).sum(1)
    points = known.sum(1).astype(jnp.float32)
    degrees = (points - 1) / jnp.maximum(points - 3, 1.0)
    explained = 1.0 - degrees * error / jnp.maximum(flat, 1e-12)
    trust = jnp.where(points > 3, jnp.clip(explained, 0.0, 1.0), 0.0)
    return laws._replace(trust=trust)


def marginal_gain(laws: Laws, seen: Float[Array, " k"]) -> Float[Array, " k"]:
    """trust alpha beta n^-alpha / n: the drop of a bin's loss by its next token."""
    n = jnp.maximum(seen, 1.0)
    return laws.trust * laws.alpha * laws.beta * n**-laws.alpha / n


def _search(
    weight: Float[Array, " slots"],
    loss: Float[Array, " slots"],
    log_n: Float[Array, " slots"],
) -> tuple[Laws, Float[Array, ""]]:
    """Law and mean squared error of one bin; weights sum to 1."""
    low, high = (jnp.log(jnp.float32(a)) for a in ALPHAS)
    for _ in range(2):
        logs = low + (high - low) * jnp.linspace(0.0, 1.0, GRID)
        eps, beta, errors = jax.vmap(_regress, (0, None, None, None))(
            jnp.exp(logs), weight, loss, log_n
        )
        at = jnp.argmin(errors)
        low, high = logs[jnp.maximum(at - 1, 0)], logs[jnp.minimum(at + 1, GRID - 1)]
    return Laws(jnp.exp(logs[at]), beta[at], eps[at], jnp.ones(())), errors[at]


def _regress(
    alpha: Float[Array, ""],
    weight: Float[Array, " slots"],
    loss: Float[Array, " slots"],
    log_n: Float[Array, " slots"],
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """(eps, beta, error) of the best non-negative eps and beta for one alpha.

    n is counted in multiples of its geometric mean, so that powers stay near 1.
    """
    middle = jnp.vdot(weight, log_n)
    x = jnp.exp(-alpha * jnp.where(weight > 0, log_n - middle, 0.0))
    x_mean, mean = jnp.vdot(weight, x), jnp.vdot(weight, loss)
    spread = jnp.vdot(weight, jnp.square(x - x_mean))
    slope = jnp.vdot(weight, (x - x_mean) * (loss - mean)) / jnp.maximum(spread, 1e-12)
    through_zero = jnp.vdot(weight, x * loss) / jnp.maximum(
        jnp.vdot(weight, x * x), 1e-12
    )
    slope = jnp.clip(slope, 0.0, jnp.maximum(through_zero, 0.0))
    eps = jnp.maximum(mean - slope * x_mean, 0.0)
    error = jnp.vdot(weight, jnp.square(loss - eps - slope * x))
    return eps, slope * jnp.exp(alpha * middle), error
