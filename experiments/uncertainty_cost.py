"""What the uncertainty of a row of text costs, by itself: FLOPs and seconds."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from uets_jax.aql.adapters import last_layer
from uets_jax.aql.make import PASSES
from uets_jax.measure.jaxpr import count
from uets_jax.models.transformer import make_model
from uets_jax.train.session import Session
from uets_jax.uncertainty.laplace import LaplaceState, bald
from uets_jax.uncertainty.mc_dropout import information

CALLS = 50  # batches in one run of a way, so that Laplace is refreshed at its rate
FIRST = 65  # calls before: the frequent refreshes of a beginning are over
ROUNDS = 9


class Way(NamedTuple):
    """A jitted function of no arguments, how many batches it reads, and its branches.

    taken: how often each branch was true.
    """

    run: Callable[..., Any]
    arguments: tuple[Any, ...]
    batches: int
    taken: dict[str, int]


def uncertainty_rows(session: Session, rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """Per row of a batch: Laplace off the by-products of a training forward, Laplace
    with a forward pass of its own, MC-dropout.

    `laplace_cheaper_*` is MC-dropout over that way: higher is better. MC-dropout takes
    its rows together or one by one, whichever is faster here.
    """
    ways, batch = _ways(session), session.config.train.batch
    seconds = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            jax.block_until_ready(way.run(*way.arguments))
            if number:  # the first round compiles
                took = time.perf_counter() - start
                seconds[name].append(took / (way.batches * batch))
    typical = {name: float(np.median(values)) for name, values in seconds.items()}
    together = min((n for n in ways if "mc_dropout" in n), key=lambda n: typical[n])
    reference = _flops(ways[together], batch), typical[together]
    found = []
    for name, way in ways.items():
        flops = _flops(way, batch)
        one = {"arm": f"{name} alone", "row_flops": flops, "row_seconds": typical[name]}
        if name.startswith("laplace"):
            one["laplace_cheaper_flops"] = reference[0] / flops
            one["laplace_cheaper_seconds"] = reference[1] / typical[name]
        if name.startswith("laplace") or name == together:
            found.append(one | {"rounds": rounds})
    return found


def _flops(way: Way, batch: int) -> float:
    """Of one row."""
    traced = jax.make_jaxpr(way.run)(*way.arguments)
    costs = count(traced).total(way.taken).values()
    return sum(cost.total for cost in costs) / (way.batches * batch)


def _ways(session: Session) -> dict[str, Way]:
    model, assets = session.config.model, session.windows
    parts, posterior = make_model(model), last_layer(model.width, model.vocab)
    params = session.initial_state().params
    batches = [jax.tree.map(jnp.asarray, assets[i]) for i in range(CALLS)]
    stacked: Any = jax.tree.map(lambda *x: jnp.stack(x), *batches)
    forward = jax.jit(lambda p, many: jax.lax.map(lambda b: parts.forward(p, b), many))
    losses, stats = forward(params, stacked)
    first = posterior.init(params)._replace(calls=jnp.int32(FIRST))

    def scores(state: LaplaceState, stats: Any) -> jax.Array:
        thin = stats.collision[:, posterior.every - 1 :: posterior.every]
        return bald(posterior.variances(state, stats), thin).mean(1)

    def observed(state: LaplaceState, given: Any) -> tuple[LaplaceState, Any]:
        batch, losses, stats = given
        found = scores(state, stats)
        told, state = posterior.update(state, stats, losses, batch.targets)
        return state, (found, told)

    def forwarded(params: Any, state: LaplaceState, batch: Any) -> jax.Array:
        return scores(state, parts.forward(params, batch)[1])

    def dropped(pieces: int) -> Callable[..., jax.Array]:
        return jax.jit(
            lambda p, tokens, seed: information(
                parts.logits, p, tokens, jax.random.key(seed), PASSES, pieces
            ).mean(1)
        )

    observe = jax.jit(lambda state, given: jax.lax.scan(observed, state, given))
    given = (first, (stacked, losses, stats))
    told = observe(*given)[1][1]
    taken = {
        k.removeprefix("taken/"): int(v.sum()) for k, v in told.items() if "/" in k
    }
    one, seed = batches[0], jnp.int32(0)
    ways = {
        "laplace": Way(observe, given, CALLS, taken),
        "laplace with a pass": Way(jax.jit(forwarded), (params, first, one), 1, {}),
        "mc_dropout": Way(dropped(1), (params, one.tokens, seed), 1, {}),
    }
    rows = one.tokens.shape[0]
    each = Way(dropped(rows), (params, one.tokens, seed), 1, {})
    return ways | {"mc_dropout, row by row": each}
