"""The law of the rollouts, and policies that are learned in its surrogate."""

import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments import arms, growth_policy_ladder
from experiments.growth_policy_ladder import RATE, RECIPE, TOKENS, Ladder
from experiments.growth_policy_score import curve_of
from uets_jax.errors import UserError
from uets_jax.growth.environment import Rules, timed
from uets_jax.growth.fit import Fit, fit
from uets_jax.growth.law import Law
from uets_jax.growth.learned import Policy
from uets_jax.growth.reinforce import Ranges, mean_value, quality, reinforce
from uets_jax.growth.score import START
from uets_jax.measure.jaxpr import count
from uets_jax.measure.machine import commit
from uets_jax.measure.work import Cost
from uets_jax.meta.cem import cem

Record = Mapping[str, Any]
LADDERS = ((0, 1, 2), (0, 2))
JUDGED = 2048  # settings on which the methods are compared


class Effort(NamedTuple):
    """How much is spent in the surrogate; settings per candidate or update."""

    population: int = 64
    elites: int = 8
    generations: int = 40
    updates: int = 300
    settings: int = 64


QUICK = Effort(16, 4, 3, 5, 8)


class Trained(NamedTuple):
    """The best policy, the law that it was learned in, a row per method."""

    policy: Policy
    fit: Fit
    rows: list[dict[str, Any]]


def fitted(records: Sequence[Record], ladder: Ladder) -> Fit:
    """The law of the runs that did not diverge.

    Raises:
      UserError: where a size has none.
    """
    curves = [curve_of(r, ladder) for r in records if not r["diverged"]]
    price = growth_policy_ladder.step_flops
    cost = [price(ladder, size) / TOKENS for size in ladder.sizes]
    return fit(curves, cost, float(TOKENS), float(np.log(arms.VOCAB)))


def trained(
    records: Sequence[Record], ladder: Ladder, command: str, effort: Effort
) -> Trained:
    """Fits, searches, follows the gradient; keeps what is best on fresh settings."""
    began, found = time.process_time(), fitted(records, ladder)
    law = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), found.law)
    longest = max(r["horizon"] for r in records) * TOKENS
    ranges = Ranges(LADDERS, (longest / 2, 2.0 * longest))
    weights, flops = {"start": jnp.asarray(START)}, {"start": 0.0}
    for name, learn in (("cem", _cem), ("reinforce", _reinforce)):
        run = functools.partial(learn, law, ranges, effort)
        flops[name] = _flops(run)
        weights[name] = jax.jit(run)(jax.random.key(1))
    values = _values(law, ranges, weights)
    best = max(("cem", "reinforce"), key=values.__getitem__)
    rows = [
        {"arm": name, "value": value, "surrogate_flops": flops.get(name, 0.0)}
        | {"shipped": name == best}
        for name, value in values.items()
    ]
    kept = [float(np.float32(w)) for w in np.asarray(weights[best])]
    if not np.isfinite(kept).all():
        raise UserError("growth_policy: the weights are not finite; see the law's fit")
    seconds = sum(sum(r["seconds"].values()) for r in records)
    policy = Policy(
        weights=tuple(kept),
        flops=float(sum(sum(r["flops"].values()) for r in records if r["flops"]))
        + sum(flops.values()),
        core_seconds=float(seconds + time.process_time() - began),
        config=_config(records, ladder, ranges, best, found),
        commit=commit() or "unknown",
        source=command,
    )
    return Trained(policy, found, rows)


def _cem(law: Law, ranges: Ranges, effort: Effort, key: Array) -> Array:
    objective = lambda w, key: quality(law, w, key, effort.settings, ranges)
    start = jnp.asarray(START)
    sizes = effort.population, effort.elites, effort.generations
    return cem(objective, start, jnp.ones_like(start), *sizes, key).mean


def _reinforce(law: Law, ranges: Ranges, effort: Effort, key: Array) -> Array:
    start = jnp.asarray(START)
    settings = effort.settings
    return reinforce(law, start, key, ranges, effort.updates, settings).weights


def _flops(run: Any) -> float:
    """Of a search, counted on its trace."""
    cost = count(jax.make_jaxpr(run)(jax.random.key(1))).total()
    return float(sum(cost.values(), start=Cost()).total)


def _values(law: Law, ranges: Ranges, weights: Mapping[str, Array]) -> dict[str, float]:
    """Mean reward / (1 + price) on the same fresh settings; and of simple schedules."""
    ask = jax.jit(lambda w, key: quality(law, w, key, JUDGED, ranges))
    found = {name: float(ask(w, jax.random.key(2))) for name, w in weights.items()}
    simple = {"never": (2.0, 2.0), "at once": (0.0, 0.0), "0.3 and 0.5": (0.3, 0.5)}
    rules = Rules()
    act = jax.jit(lambda s, key: mean_value(law, timed(s), key, JUDGED, ranges, rules))
    for name, shares in simple.items():
        found[name] = float(act(jnp.array(shares), jax.random.key(2)))
    return found


def _config(
    records: Sequence[Record],
    ladder: Ladder,
    ranges: Ranges,
    method: str,
    found: Fit,
) -> dict[str, Any]:
    """For the policy's file."""
    return {
        "track": "clean",
        "recipe": RECIPE,
        "field": ladder.field,
        "sizes": [*ladder.sizes],
        "model": dict(ladder.model),
        "learning_rate": RATE,
        "steps": sorted({r["horizon"] for r in records}),
        "rollouts": len(records),
        "method": method,
        "tokens": [*ranges.tokens],
        "prices": [*ranges.price],
        "law": {k: np.asarray(v).tolist() for k, v in found.law._asdict().items()},
        "residual": found.residual,
        "missed": found.missed,
    }
