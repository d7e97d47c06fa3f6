"""Learned initial parameters on sinusoids, against random ones and a joint start.

A documented comparison on small tasks, no part of the product: a learned initialisation
belongs to one architecture and one distribution of tasks, a rule goes with every
network. `joint` is plain training on the mixture of tasks, with as many updates on as
many tasks by the same Adam; it is MAML with no step of adaptation.
"""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from experiments.optimizer_small_tuning import TUNING, tuned
from uets_jax.meta.family import Family
from uets_jax.meta.maml import adaptation, learn_start
from uets_jax.types import Params

METHODS = ("maml", "fomaml", "reptile", "joint", "random")
STEPS = (1, 5, 10)  # of SGD from a start; 5 of them while it is learned
UPDATES, TASKS, SEEDS = 4000, 64, 8
RATE, OUTER_RATE = 0.02, 3e-3
LIMIT = np.e  # times the loss before adaptation: above it, a run has diverged


def starts(
    family: Family, method: str, key: Key[Array, ""], updates: int, seeds: int
) -> Params:
    """Initial parameters, every leaf with a leading axis of seeds.

    Args:
      family: whose instances are the tasks.
      method: one of `METHODS`.
      key: of everything.
      updates: of every start.
      seeds: starts, each learned from random parameters of its own.
    """

    def one(key: Key[Array, ""]) -> Params:
        if method == "random":
            own, init = jax.random.split(key)
            return family.init(family.instance(own), init)
        by, steps = (method, 5) if method != "joint" else ("maml", 0)
        learn = functools.partial(learn_start, rate=RATE, outer_rate=OUTER_RATE)
        return learn(family, key, by, updates, steps=steps).params

    go = jax.jit(one)
    each = [go(own) for own in jax.random.split(key, seeds)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)


Losses = Callable[
    [Params, Int[Array, " t"], Float[Array, ""]],
    tuple[Float[Array, "s t"], Float[Array, "s t"]],
]


def losses(family: Family, steps: int) -> Losses:
    """(starts, numbers of tasks, factor of the rate) -> held-out losses, before, after.

    The tasks and their mini-batches are the same for every start.
    """

    def one(params: Params, number: Array, factor: Array) -> tuple[Array, Array]:
        key = jax.random.fold_in(jax.random.key(1), number)
        own, train = jax.random.split(key)
        instance = family.instance(own)
        adapted = adaptation(family, factor * RATE, steps)(params, instance, train)
        return family.held(params, instance), family.held(adapted, instance)

    return jax.jit(jax.vmap(jax.vmap(one, (None, 0, None)), (0, None, None)))


def rows(
    family: Family,
    methods: Sequence[str] = METHODS,
    steps: Sequence[int] = STEPS,
    updates: int = UPDATES,
    seeds: int = SEEDS,
    tasks: int = TASKS,
) -> list[dict[str, Any]]:
    """A row for each method and number of steps, its rate tuned on other tasks.

    Errors are over starts: the tasks are the same for all.
    """
    after, found = {k: losses(family, k) for k in steps}, []
    for method in methods:
        begun = time.process_time()
        made = jax.block_until_ready(
            starts(family, method, jax.random.key(0), updates, seeds)
        )
        spent = (time.process_time() - begun) / seeds
        paid = {
            "seen": None if method == "random" else "yes",
            "core_seconds": 0.0 if method == "random" else spent,
        }
        for k in steps:
            own = {"family": family.name, "arm": method, "steps": k, **paid}
            found.append(own | row(functools.partial(after[k], made), tasks))
    return found


def row(
    after: Callable[[Int[Array, " t"], Float[Array, ""]], Any], tasks: int
) -> dict[str, Any]:
    """What the starts come to on tasks 0, 1, .., at the factor of others."""

    def run(first: int, factor: float) -> tuple[np.ndarray, np.ndarray]:
        numbers = jnp.arange(first, first + tasks)
        return capped(*map(np.asarray, after(numbers, jnp.asarray(factor))))

    factor = tuned(lambda factor: float(run(TUNING, factor)[0].mean()))
    ends, broken = run(0, factor)
    means = ends.mean(1, dtype=np.float64)
    return {
        "seeds": len(means),
        "tuned": True,
        "rate_factor": factor,
        "log_loss": None,
        "loss": means.mean(),
        "standard_error": means.std(ddof=1) / np.sqrt(len(means)),
        "diverged": broken.mean(),
        "state_bytes_per_parameter": 0.0,
    }


def capped(
    before: Float[np.ndarray, "s t"], after: Float[np.ndarray, "s t"]
) -> tuple[np.ndarray, np.ndarray]:
    """Losses of at most `LIMIT` times what they were, and which runs have diverged."""
    broken = ~(after < LIMIT * before)
    return np.where(broken, LIMIT * before, after), broken
