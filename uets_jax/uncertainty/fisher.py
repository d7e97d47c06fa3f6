"""The diagonal of the Fisher matrix, from sampled labels or from Adam's memory.

F_i = E_x E_{y ~ p(y|x)} [(d log p(y|x) / d theta_i)^2], per token. With labels drawn
from the model itself (`fisher`) the scores of n tokens have mean 0 and, given the
tokens before them, are independent; so of the gradient g of their *mean* loss

    E[n g^2] = F,

without bias and from one backward pass. That is the true Fisher.

Adam's second moment (`from_adam`) costs nothing but holds gradients of the *true*
labels: n E[g^2] = (empirical Fisher) + (n - 1) E[g_1]^2. The squared mean is a bias
upwards that falls only as training ends; the first term equals the Fisher only where
the model is calibrated (Kunstner et al. 2019). Clipping scales it down further. It is
good for ranking, not for scale.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from uets_jax.component import Component
from uets_jax.errors import UserError
from uets_jax.types import Metrics, Params
from uets_jax.uncertainty.laplace import Branch, plain

Logits = Callable[[Params, Any], Float[Array, "*n v"]]

SAMPLE = "fisher_sample"


@dataclasses.dataclass(frozen=True)
class FisherConfig:
    """How often gradients are sampled, and how long they count."""

    every: int = 16
    """Calls between two sampled gradients."""
    decay: float = 0.95
    """Weight that the average keeps of its past with each sample."""


class FisherState(NamedTuple):
    """The moving average.

    calls:  so far.
    mass:   samples behind the average, by their weights.
    fisher: debiased, mirrors params leaf for leaf; 0 before the first sample.
    """

    calls: Int[Array, ""]
    mass: Float[Array, ""]
    fisher: Params


def fisher(
    logits: Logits, config: FisherConfig | None = None, branch: Branch = plain
) -> Component:
    """The true Fisher's diagonal: `apply(state, params, inputs, key, mask=None)`.

    Each `every`-th call, the first included, costs a forward and a backward pass over
    `inputs`, which may be some rows of a batch; the others cost nothing. The output is
    metrics: `taken/fisher_sample`, 1 where a gradient was sampled, else 0. A sample
    that is not finite, or of no token that counts, changes nothing.

    Args:
      logits: (params, inputs) -> [..., V].
      config: rates.
      branch: `uets_jax.measure.scopes.branch` where the FLOPs of both arms are counted;
        its name is `SAMPLE`.

    Raises:
      UserError: for a rate that can't work.
    """
    c = config or FisherConfig()
    if c.every < 1:
        raise UserError(f"fisher: every: must be at least 1, got {c.every}")
    if not 0 <= c.decay < 1:
        raise UserError(f"fisher: decay: must be in [0, 1), got {c.decay}")

    def init(params: Params) -> FisherState:
        zero = jnp.zeros(())
        return FisherState(
            jnp.zeros((), jnp.int32), zero, jax.tree.map(jnp.zeros_like, params)
        )

    def sampled(state: FisherState, *given: Any) -> FisherState:
        gradient, n = sampled_gradient(logits, *given)
        new = per_token(gradient, n)
        sound = jnp.isfinite(optax.tree.sum(new)) & (n > 0)
        mass = c.decay * state.mass + 1
        mix = lambda f, x: jnp.where(sound, f + (x - f) / mass.astype(f.dtype), f)
        return state._replace(
            mass=jnp.where(sound, mass, state.mass),
            fisher=jax.tree.map(mix, state.fisher, new),
        )

    def apply(
        state: FisherState,
        params: Params,
        inputs: Any,
        key: Key[Array, ""],
        mask: Bool[Array, "*n"] | None = None,
    ) -> tuple[Metrics, FisherState]:
        due, given = state.calls % c.every == 0, (state, params, inputs, key, mask)
        after = branch(SAMPLE, due, sampled, lambda s, *_: s, *given)
        metrics = {f"taken/{SAMPLE}": due.astype(jnp.int32)}
        return metrics, after._replace(calls=state.calls + 1)

    return Component(init, apply)


def sampled_gradient(
    logits: Logits,
    params: Params,
    inputs: Any,
    key: Key[Array, ""],
    mask: Bool[Array, "*n"] | None = None,
) -> tuple[Params, Float[Array, ""]]:
    """(g, n): the gradient of the mean loss over n labels that the model itself draws.

    Each is drawn by the inverse of its distribution function, from one random number;
    Gumbel noise takes V of them, which costs 30 times as much.

    Args:
      logits: (params, inputs) -> [..., V].
      mask: True for the tokens that count; None: all.
    """

    def loss(params: Params) -> tuple[Float[Array, ""], Float[Array, ""]]:
        z = jax.nn.log_softmax(logits(params, inputs).astype(jnp.float32))
        below = jnp.cumsum(jnp.exp(jax.lax.stop_gradient(z)), -1)
        height = jax.random.uniform(key, z.shape[:-1]) * below[..., -1]
        labels = (below <= height[..., None]).sum(-1, keepdims=True)
        labels = jnp.minimum(labels, z.shape[-1] - 1)
        picked = jnp.take_along_axis(z, labels, -1)[..., 0]
        known = jnp.ones_like(picked) if mask is None else mask.astype(picked.dtype)
        n = known.sum()
        return -(known * picked).sum() / jnp.maximum(n, 1.0), n

    return jax.grad(loss, has_aux=True)(params)


def per_token(gradient: Params, n: Float[Array, ""]) -> Params:
    """n g^2, of a `sampled_gradient`: an unbiased estimate of a token's Fisher."""
    return jax.tree.map(lambda g: n.astype(g.dtype) * jnp.square(g), gradient)


def from_adam(
    opt_state: Any, params: Params, tokens: Float[Array, ""] | float | int, b2: float
) -> Any:
    """n nu / (1 - b2^t): Adam's second moment as a biased Fisher; see above.

    Args:
      opt_state: an optax state that holds one or several of Adam's.
      params: whose structure the result has; None stands where Adam does not run, as
        for Muon's matrices.
      tokens: n, targets behind each gradient of the mean loss.
      b2: Adam's decay of `nu`.

    Raises:
      UserError: if Adam runs nowhere.
    """
    is_adam = lambda x: hasattr(x, "nu") and hasattr(x, "count")
    states = [x for x in jax.tree.leaves(opt_state, is_leaf=is_adam) if is_adam(x)]
    if not states:
        raise UserError("from_adam: no second moment in this state: use adamw or muon")
    absent = lambda x: x is None or isinstance(x, optax.MaskedNode)
    found: list[Any] = [None] * len(jax.tree.leaves(params))
    for state in states:
        scale = tokens / (1 - b2 ** jnp.maximum(state.count, 1))
        for i, nu in enumerate(jax.tree.leaves(state.nu, is_leaf=absent)):
            found[i] = found[i] if absent(nu) else scale.astype(nu.dtype) * nu
    return jax.tree.unflatten(jax.tree.structure(params), found)
