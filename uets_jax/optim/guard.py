"""Whether an update is applied: decided inside the compiled step, from three numbers.

A step is bad where the loss, the gradient or the update is not finite, or the loss is
a spike. What is left out then leaves no trace: parameters, optimizer and parts stay.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from uets_jax.component import Component
from uets_jax.types import Params

WARM_UP = 20  # good steps before a loss can be a spike


class GuardState(NamedTuple):
    """Running moments of the loss over good steps."""

    seen: Int[Array, ""]
    mean: Float[Array, ""]
    variance: Float[Array, ""]


def guard(spike: float = 0.0, decay: float = 0.98) -> Component:
    """Admits an update, or not: `apply(state, loss, grad_norm, update_norm)`.

    The output is True for a good step. With l the loss, m and v its exponential moving
    mean and variance over good steps, l > m + spike sqrt(v) is a spike, once
    `WARM_UP` steps were good.

    Args:
      spike: in standard deviations; 0: only what is not finite is bad.
      decay: of the moving moments, per good step.

    Source: moments by West (1979); the rule is that of MaxText's
    `skip_step_on_spikes`, with exponential in place of rolling moments.
    """

    def apply(
        state: GuardState,
        loss: Float[Array, ""],
        grad_norm: Float[Array, ""],
        update_norm: Float[Array, ""],
    ) -> tuple[Bool[Array, ""], GuardState]:
        good = jnp.isfinite(loss) & jnp.isfinite(grad_norm) & jnp.isfinite(update_norm)
        if spike:
            limit = state.mean + spike * jnp.sqrt(state.variance)
            good &= (state.seen < WARM_UP) | (loss <= limit)
        moved = _moments(state, loss, decay)
        keep = lambda new, old: jnp.where(good, new, old)
        return good, GuardState(*map(keep, moved, state))

    def init(params: Params) -> GuardState:
        return GuardState(jnp.zeros((), jnp.int32), jnp.zeros(()), jnp.zeros(()))

    return Component(init=init, apply=apply)


def _moments(state: GuardState, loss: Array, decay: float) -> GuardState:
    """The moments after one more loss; plain averages until 1 / (1 - decay) of them."""
    seen = state.seen + 1
    share = jnp.maximum(1 - decay, 1 / seen)
    apart = loss - state.mean
    mean = state.mean + share * apart
    variance = (1 - share) * (state.variance + share * apart * apart)
    return GuardState(seen, mean, variance)
