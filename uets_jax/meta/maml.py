"""Learned initial parameters: MAML and Reptile, as a comparison to a learned rule.

A learned initialisation belongs to one architecture and one distribution of tasks; a
rule goes with every network. Sources: Finn et al. 2017, arXiv:1703.03400 (MAML, and its
first-order form); Nichol et al. 2018, arXiv:1803.02999 (Reptile).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from uets_jax.errors import UserError
from uets_jax.meta.family import Family
from uets_jax.types import Params

Adapt = Callable[[Params, object, Key[Array, ""]], Params]


class Learned(NamedTuple):
    """params: the initialisation. losses: held-out loss after adaptation, mean over
    the tasks of each update.
    """

    params: Params
    losses: Float[Array, " updates"]


def adaptation(
    family: Family, rate: float | Float[Array, ""], steps: int, first: bool = False
) -> Adapt:
    """(params, instance, key) -> params after `steps` of SGD on fresh mini-batches.

    `first`: gradients are constants to whoever differentiates through this.
    """

    def adapt(params: Params, instance: object, key: Key[Array, ""]) -> Params:
        def step(params: Params, i: Array) -> tuple[Params, None]:
            rows, own = jnp.asarray(family.batch), jax.random.fold_in(key, i)
            grads = jax.grad(family.loss)(params, instance, own, rows)
            grads = jax.lax.stop_gradient(grads) if first else grads
            return jax.tree.map(lambda p, g: p - rate * g, params, grads), None

        return jax.lax.scan(step, params, jnp.arange(steps))[0]

    return adapt


def learn_start(
    family: Family,
    key: Key[Array, ""],
    method: str = "maml",
    updates: int = 200,
    tasks: int = 8,
    rate: float = 0.05,
    steps: int = 5,
    outer_rate: float = 1e-2,
) -> Learned:
    """Learns initial parameters for a family; pure, can be jitted.

    Args:
      family: whose instances are the tasks; one `init` of its is where this begins.
      key: of everything.
      method: maml differentiates the held-out loss after adaptation through it; fomaml
        leaves second derivatives out; reptile moves towards adapted parameters and
        never reads held-out data.
      updates: of the initialisation, by Adam.
      tasks: of each update.
      rate: of adaptation by SGD.
      steps: of adaptation.
      outer_rate: of Adam.

    Raises:
      UserError: for an unknown method.
    """
    if method not in ("maml", "fomaml", "reptile"):
        raise UserError(f"method {method!r}: choose from maml, fomaml, reptile")
    adapt = adaptation(family, rate, steps, first=method == "fomaml")
    rule = optax.adam(outer_rate)

    def after(params: Params, key: Key[Array, ""]) -> tuple[Array, Params]:
        own, train = jax.random.split(key)
        instance = family.instance(own)
        adapted = adapt(params, instance, train)
        return family.held(adapted, instance), adapted

    def update(carry: tuple[Params, optax.OptState], key: Key[Array, ""]):
        params, opt = carry
        keys = jax.random.split(key, tasks)
        if method == "reptile":
            losses, adapted = jax.vmap(after, (None, 0))(params, keys)
            apart = lambda p, a: (p - a.mean(0)) / (rate * steps)
            grads, loss = jax.tree.map(apart, params, adapted), losses.mean()
        else:
            mean = lambda p: jax.vmap(lambda k: after(p, k)[0])(keys).mean()
            loss, grads = jax.value_and_grad(mean)(params)
        changes, opt = rule.update(grads, opt, params)
        return (optax.apply_updates(params, changes), opt), loss

    own, init, train = jax.random.split(key, 3)
    params = family.init(family.instance(own), init)
    start = (params, rule.init(params))
    (params, _), losses = jax.lax.scan(update, start, jax.random.split(train, updates))
    return Learned(params, losses)
