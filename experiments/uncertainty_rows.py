"""What scores are worth: agreement, detection, calibration, cost; a row for each."""

import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.uncertainty_calibration import (
    calibration,
    in_pieces,
    judged,
    reliability_rows,
)
from experiments.uncertainty_methods import Method
from experiments.uncertainty_texts import NATURAL, SHUFFLED, unseen
from uets_jax.measure.jaxpr import count
from uets_jax.measure.work import Cost
from uets_jax.types import Batch, Stats
from uets_jax.uncertainty.calibration import auroc, spearman

Row = dict[str, Any]
Values = dict[str, dict[str, np.ndarray]]  # by score, by kind of text
REFERENCES = {"ensemble": "ensemble", "dropout": "mc_dropout"}
REPEATS = 5


def uncertainty_rows(
    ways: Sequence[Method],
    windows: dict[str, Batch],
    forward: Callable[[Batch], Stats],
    rows: int = 32,
    clock: Callable[..., float] | None = None,
) -> list[Row]:
    """A row for each score of each method, then those of the reliability diagrams.

    Args:
      ways: the first one is a plain forward pass; the references are among them.
      windows: by kind, see `uncertainty_texts`.
      forward: the plain pass, whose cost the methods `beside` it don't have again.
      rows: windows that are scored at once.
      clock: (function, *arguments) -> seconds of a call; None: measured.

    Returns:
      spearman_*: over windows, with the mutual information of the references; of the
        natural ones and, `_all`, of all kinds. auroc_*: a kind against natural windows.
      ece_*, nll_* (nats): per token, of the method's predictive, in the row of its
        first score. flops_per_token, seconds (per 1,000 windows): of the scores;
        extra_*: beyond a plain forward pass that is made anyhow. At the end, see
        `reliability_rows`.
    """
    values = [scored(way, windows, rows) for way in ways]
    batch = jax.tree.map(lambda x: jnp.asarray(x[:rows]), windows[NATURAL])
    costs = expenses(ways, batch, forward(batch), clock or best_seconds)
    references = {
        name: next(v["bald"] for w, v in zip(ways, values, strict=True) if w.name == of)
        for name, of in REFERENCES.items()
    }
    found, diagrams = [], []
    for way, mine, spent in zip(ways, values, costs, strict=True):
        told = judged(way, windows, rows)
        quality, diagram = calibration(told), reliability_rows(way, told)
        diagrams += diagram
        for place, (score, by_kind) in enumerate(mine.items()):
            row: Row = {"method": way.name, "score": score, "features": way.features}
            row |= agreement(by_kind, references) | detection(by_kind)
            row |= dict.fromkeys(quality) if place else quality
            found.append(row | spent)
    return found + diagrams


def scored(way: Method, windows: dict[str, Batch], rows: int) -> Values:
    """The mean score of each window."""

    @jax.jit
    def mean(arrays: Any, batch: Batch, seed: Any) -> Any:
        by_row = lambda x: x.reshape(x.shape[0], -1).mean(1)
        return jax.tree.map(by_row, _seeded(way, arrays, batch, seed))

    found: Values = {}
    for kind, batch in windows.items():
        for score, values in in_pieces(mean, way.arrays, batch, rows).items():
            found.setdefault(score, {})[kind] = values
    return found


def agreement(values: dict[str, np.ndarray], references: Values) -> Row:
    """Rank correlations with each reference; None with itself."""
    found: Row = {}
    joined = lambda by_kind: np.concatenate([*by_kind.values()])
    for name, other in references.items():
        pairs = {"": (values[NATURAL], other[NATURAL])}
        pairs["_all"] = (joined(values), joined(other))
        for which, pair in pairs.items():
            rank = None if values is other else finite(spearman(*pair))
            found[f"spearman_{name}{which}"] = rank
    return found


def detection(values: dict[str, np.ndarray]) -> Row:
    """AUROC of each kind, and of all unseen domains, against natural windows."""
    natural, kinds = values[NATURAL], unseen([*values])

    def told_apart(others: np.ndarray) -> float | None:
        labels = np.arange(len(natural) + len(others)) >= len(natural)
        return finite(auroc(np.concatenate([natural, others]), labels))

    found = {f"auroc_{kind}": told_apart(values[kind]) for kind in SHUFFLED}
    found["auroc_unseen"] = told_apart(np.concatenate([values[k] for k in kinds]))
    return found | {f"auroc_{kind}": told_apart(values[kind]) for kind in kinds}


def finite(value: float) -> float | None:
    """None where a figure does not exist: of scores that are all equal."""
    return value if math.isfinite(value) else None


def expenses(
    ways: Sequence[Method], batch: Batch, stats: Stats, clock: Callable[..., float]
) -> list[Row]:
    """What the scores of each method cost; the first one is the plain forward pass."""
    tokens, rows = batch.tokens.size, len(batch.ids)

    def cost(function: Callable[..., Any], *given: Any) -> tuple[float, float]:
        spent = count(jax.make_jaxpr(function)(*given)).most().values()
        flops = sum(spent, start=Cost()).total / tokens
        return flops, 1000 * clock(jax.jit(function), *given) / rows

    def of(way: Method) -> tuple[tuple[float, float], tuple[float, float]]:
        """(all of it, beyond a plain forward pass)."""
        if way.beside is not None:
            extra = cost(way.beside, way.arrays, stats)
            return (basis[0] + extra[0], basis[1] + extra[1]), extra
        own = cost(functools.partial(_seeded, way), way.arrays, batch)
        return own, own

    basis = cost(functools.partial(_seeded, ways[0]), ways[0].arrays, batch)
    found = [(basis, (0.0, 0.0)), *map(of, ways[1:])]
    names = ("flops_per_token", "seconds", "extra_flops_per_token", "extra_seconds")
    return [dict(zip(names, whole + extra, strict=True)) for whole, extra in found]


def _seeded(way: Method, arrays: Any, batch: Batch, seed: Any = 0) -> Any:
    return way.scores(arrays, batch, jax.random.key(seed))


def best_seconds(function: Callable[..., Any], *given: Any) -> float:
    """The shortest of some calls: others may be at work on the machine."""
    jax.block_until_ready(function(*given))
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(function(*given))
        times.append(time.perf_counter() - start)
    return min(times)
