"""Selection by a forward pass over all candidates: the costly arms of comparison."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float, Key

from uets_jax.aql.reference import reference_losses
from uets_jax.component import Selection
from uets_jax.selection.scores import row_mean
from uets_jax.types import Batch, Metrics, Moment, Stats

Score = Callable[[Batch, Moment], Float[Array, " c"] | None]
Forward = Callable[..., tuple[Array, Stats]]


def forwarded(score: Score, batch: int) -> Selection:
    """Trains on the B best of the candidates, or on a uniform draw of them where the
    score is None; keeps nothing.
    """

    def choose(
        state: tuple[()], pool: Batch, moment: Moment
    ) -> tuple[Batch, None, Metrics, tuple[()]]:
        scores, told = score(pool, moment), {}
        if scores is None:
            drawn = jax.random.uniform(moment.key, pool.ids.shape)
            rows = jax.lax.top_k(drawn, batch)[1]
        else:
            best, rows = jax.lax.top_k(scores, batch)
            told["select_score"] = best.mean()
        return jax.tree.map(lambda x: x[rows], pool), None, told, state

    def observe(state: tuple[()], *given: Any) -> tuple[Metrics, tuple[()]]:
        return {}, state

    return Selection(lambda params: (), choose, observe)


def by_loss(forward: Forward) -> Score:
    """The loss of each row."""

    def score(pool: Batch, moment: Moment) -> Float[Array, " c"]:
        return row_mean(forward(moment.params, pool)[0], pool.targets)

    return score


def by_excess(forward: Forward) -> Score:
    """The loss of each row less that of the assets' reference (RHO).

    Where there is none yet, None, and no pass over the rows.
    """

    def score(pool: Batch, moment: Moment) -> Float[Array, " c"] | None:
        if moment.assets.reference is None:
            return None
        losses = row_mean(forward(moment.params, pool)[0], pool.targets)
        return losses - reference_losses(moment.assets.reference, pool)

    return score


def by_dropout(
    information: Callable[[Any, Batch, Key[Array, ""]], Float[Array, "c l"]],
) -> Score:
    """Mutual information of each row under dropout (v1).

    information: (params, pool, key) -> nats per token.
    """

    def score(pool: Batch, moment: Moment) -> Float[Array, " c"]:
        found = information(moment.params, pool, moment.key)
        return row_mean(found, pool.targets)

    return score


def by_entropy(forward: Forward) -> Score:
    """The entropy of each row's predictions."""

    def score(pool: Batch, moment: Moment) -> Float[Array, " c"]:
        return row_mean(forward(moment.params, pool)[1].entropy, pool.targets)

    return score
