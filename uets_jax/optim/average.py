"""Averaged weights: a power-function moving average of the parameters of a run."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from uets_jax.errors import UserError
from uets_jax.optim.matrices import wide
from uets_jax.types import Params

WIDEST = 12**-0.5  # width of the plain mean over all steps, exponent 0


class AverageState(NamedTuple):
    """count: updates so far; average: of the parameters before the latest of them,
    mirrors params, in float32 or the parameter's dtype where that is wider.
    """

    count: Int[Array, ""]
    average: Params


def exponent(width: float) -> float:
    """gamma of the weights s^gamma, s = 1..t, whose standard deviation is `width` t.

    The largest root of width^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)), the
    variance of s / t where t is large (Karras et al. 2024, arXiv:2312.02696, app. C).

    Raises:
      UserError: for a width outside (0, `WIDEST`].
    """
    if not 0 < width <= WIDEST:
        raise UserError(
            f"average: {width}: give a width above 0, at most {WIDEST:.4f} (the plain "
            "mean of all steps)"
        )
    t = width**-2
    return float(np.roots([1, 7, 16 - t, 12 - t]).real.max())


def average(width: float = 0.1) -> optax.GradientTransformationExtraArgs:
    """Keeps a moving average of the parameters; updates pass as they are.

    a_t = beta_t a_(t-1) + (1 - beta_t) p_t,  beta_t = (1 - 1 / t)^(gamma + 1)

    over p_t, the parameters after t updates; those before the first do not count. The
    weight of p_s rises with s about as s^gamma, so that the window is a fixed share of
    the steps so far and no horizon is needed.

    Each `update` adds the parameters it is given, which hold whatever was done to the
    updates after this; `averaged` adds the latest ones. So it may stand anywhere in a
    chain, and what a guard, a warm-up or a frozen block changes later is in it.

    Args:
      width: standard deviation of the window as a share of the steps so far, sigma_rel
        of the paper; 0.1: 90 % of the weight lies in the latest quarter of them.

    Raises:
      UserError: for a width outside (0, `WIDEST`].

    Source: Karras et al. 2024, "Analyzing and Improving the Training Dynamics of
    Diffusion Models" (arXiv:2312.02696), section 3 and appendix C.
    """
    gamma = exponent(width)

    def init(params: Params) -> AverageState:
        copy = lambda p: jnp.asarray(p, wide(p.dtype))
        return AverageState(jnp.zeros((), jnp.int32), jax.tree.map(copy, params))

    def update(updates, state, params=None, **extra):
        if params is None:
            raise ValueError("average: update needs `params`")
        mixed = _mixed(state, params, gamma)
        return updates, AverageState(optax.safe_increment(state.count), mixed)

    return optax.GradientTransformationExtraArgs(init, update)


def averaged(width: float = 0.1) -> Callable[[Params, Any], Params]:
    """`(params p_t, optimizer's state) -> a_t`, the model that is evaluated.

    The state may hold that of `average` anywhere; without one params come back.
    """
    gamma = exponent(width)

    def read(params: Params, opt: Any) -> Params:
        is_own = lambda x: isinstance(x, AverageState)
        found = [s for s in jax.tree.leaves(opt, is_leaf=is_own) if is_own(s)]
        if not found:
            return params
        mixed = _mixed(found[0], params, gamma)
        return jax.tree.map(lambda p, a: a.astype(p.dtype), params, mixed)

    return read


def _mixed(state: AverageState, params: Params, gamma: float) -> Params:
    """The average with these parameters in it; what stands still stays bit by bit."""
    share = _share(state.count, gamma)

    def mix(a, p):
        if _left_out(a):
            return p
        p, c = p.astype(a.dtype), share.astype(a.dtype)
        return jnp.where(share < 1, a + c * (p - a), p)

    return jax.tree.map(mix, state.average, params, is_leaf=_left_out)


def _left_out(x: Any) -> bool:
    """By `optax.masked`: such a parameter is not averaged."""
    return isinstance(x, optax.MaskedNode)


def _share(count: Int[Array, ""], gamma: float) -> Float[Array, ""]:
    """1 - beta_t; 1 up to the first step."""
    t = jnp.maximum(count, 1).astype(jnp.float32)
    return -jnp.expm1((gamma + 1) * jnp.log1p(-1 / t))
