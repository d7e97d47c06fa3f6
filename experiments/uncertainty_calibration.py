"""How far the predictive of a method may be believed: ECE, NLL, reliability diagram."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.uncertainty_methods import Method
from experiments.uncertainty_texts import NATURAL, SHUFFLED, unseen
from uets_jax.types import Batch
from uets_jax.uncertainty.calibration import ece, reliability

Row = dict[str, Any]
Judged = Mapping[str, Mapping[str, np.ndarray]]
GROUPS = ("target", "unseen", "shuffled")
RELIABILITY = "reliability"  # `score` of the rows of a diagram


def judged(way: Method, windows: Mapping[str, Batch], rows: int) -> Judged | None:
    """By group of texts: `confidence`, `right` and `nats` of each token's prediction.

    Args:
      windows: by kind, see `uncertainty_texts`; the groups are target text, domains
        that the pool has nothing of, and shuffled text.
      rows: windows that are predicted at once.

    Returns:
      None for a method without a predictive.
    """
    predict = way.probabilities
    if predict is None:
        return None

    @jax.jit
    def judge(arrays: Any, batch: Batch, seed: Any) -> dict[str, Any]:
        p = predict(arrays, batch, jax.random.key(seed))
        chance = jnp.take_along_axis(p, batch.targets[..., None], -1)[..., 0]
        right = p.argmax(-1) == batch.targets
        surprise = -jnp.log(jnp.maximum(chance, 1e-30))
        return {"confidence": p.max(-1), "right": right, "nats": surprise}

    kinds = ([NATURAL], unseen([*windows]), SHUFFLED)
    seen = {k: in_pieces(judge, way.arrays, b, rows) for k, b in windows.items()}
    flat = lambda *x: np.concatenate(x).ravel()
    return {
        group: jax.tree.map(flat, *(seen[kind] for kind in names))
        for group, names in zip(GROUPS, kinds, strict=True)
    }


def calibration(told: Judged | None) -> Row:
    """ECE and NLL (nats) per token in each group; None without a predictive."""
    if told is None:
        return {f"{name}_{group}": None for name in ("ece", "nll") for group in GROUPS}
    found: Row = {
        f"ece_{group}": ece(t["confidence"], t["right"]) for group, t in told.items()
    }
    return found | {f"nll_{g}": float(t["nats"].mean()) for g, t in told.items()}


def reliability_rows(way: Method, told: Judged | None) -> list[Row]:
    """The diagram: a row for each bin of confidence that holds predictions.

    Returns:
      `group` of texts, `confidence` and `accuracy` (means of the bin), `predictions` in
      it; `score` is "reliability".
    """
    start = {"method": way.name, "score": RELIABILITY, "features": way.features}
    return [
        {
            **start,
            "group": group,
            "confidence": float(table.confidence[i]),
            "accuracy": float(table.accuracy[i]),
            "predictions": int(table.number[i]),
        }
        for group, t in (told or {}).items()
        for table in [reliability(t["confidence"], t["right"])]
        for i in np.flatnonzero(table.number)
    ]


def in_pieces(
    function: Callable[..., Any], arrays: Any, batch: Batch, rows: int
) -> dict[str, np.ndarray]:
    """A jitted function of (arrays, windows, seed) on all, some rows at a time."""
    total, parts = len(batch.ids), []
    for i, start in enumerate(range(0, total, rows)):
        place = np.arange(start, start + rows) % total  # the last piece is filled up
        piece = jax.tree.map(lambda x, p=place: x[p], batch)
        out = jax.tree.map(np.asarray, function(arrays, piece, i))
        parts.append(jax.tree.map(lambda x, n=total - start: x[:n], out))
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)
