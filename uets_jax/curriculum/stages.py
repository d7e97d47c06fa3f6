"""Four stages of difficulty, and the band of text that a stage admits.

Difficulty is a quantile in [0, 1] (`curriculum.difficulty.ranks`). Three rising
thresholds, traced, part it into the stages easy, medium, hard and edge. Admission is a
key that is added to a score before the best are drawn, so shapes never change: where
too few are inside a band, the nearest ones follow.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from uets_jax.types import Metrics

STAGES = ("easy", "medium", "hard", "edge")
THRESHOLDS = (0.25, 0.5, 0.75)
BARRED = 1e6  # below any score

Number = int | float | Float[Array, ""]


def stages_of(
    ranks: Float[Array, " n"], thresholds: Float[Array, "3"]
) -> Int[Array, " n"]:
    """The stage, 0 to 3, that each difficulty belongs to."""
    reached = ranks[:, None] >= thresholds[None, :]
    return reached.sum(1, dtype=jnp.int32)


def stage_at(progress: Number, starts: Float[Array, "3"]) -> Int[Array, ""]:
    """The stage of a time; `starts` is when medium, hard and edge begin, rising."""
    return (jnp.asarray(progress) >= starts).sum(dtype=jnp.int32)


def band(
    stage: Int[Array, ""], thresholds: Float[Array, "3"], overlap: Number = 0.0
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(low, high): the difficulties of a stage.

    Args:
      overlap: 0 leaves all easier text behind, 1 keeps all of it: low is that share
        nearer to 0.
    """
    edges = jnp.concatenate([jnp.zeros(1), thresholds, jnp.ones(1)])
    return edges[stage] * (1.0 - overlap), edges[stage + 1]


def admit(ranks: Float[Array, " n"], low: Number, high: Number) -> Float[Array, " n"]:
    """0 inside [low, high], else -BARRED (1 + distance to the band).

    Added to scores of any usual size it puts all that is inside first, then what is
    outside by its distance.
    """
    distance = jnp.maximum(jnp.maximum(low - ranks, ranks - high), 0.0)
    return jnp.where(distance > 0, -BARRED * (1.0 + distance), 0.0)


def stage_metrics(
    ranks: Float[Array, " n"],
    stage: Int[Array, ""],
    thresholds: Float[Array, "3"],
    low: Number,
    high: Number,
) -> Metrics:
    """What a drawn batch shows of its curriculum.

    `stage` (0 to 3), `stage_low` and `stage_high` (the band), `threshold_medium`,
    `threshold_hard` and `threshold_edge` (where these stages begin), `share_easy` to
    `share_edge` (of the batch's rows) and `difficulty` (mean quantile).
    """
    found = stages_of(ranks, thresholds)
    seen = {"stage": stage, "stage_low": low, "stage_high": high}
    seen |= {f"threshold_{n}": t for n, t in zip(STAGES[1:], thresholds, strict=True)}
    seen |= {f"share_{n}": (found == i).mean() for i, n in enumerate(STAGES)}
    seen["difficulty"] = ranks.mean()
    return {name: jnp.asarray(value) for name, value in seen.items()}
