"""A curriculum alone: candidates in the order of their difficulty, drawn at random."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from uets_jax.aql.forwarded import Score
from uets_jax.component import Selection
from uets_jax.config import CurriculumConfig
from uets_jax.curriculum import difficulty, pacing, progress, stages
from uets_jax.curriculum.adaptive import bins_of
from uets_jax.selection.scores import row_mean
from uets_jax.types import Batch, Metrics, Moment, Stats

BINS = 16  # of static difficulty, whose learning progress is recorded
RECENT = 2048  # candidates that a by-product is ranked among


class OrderedState(NamedTuple):
    """ranked: of by-products; gained: losses per bin, with difficulty `progress`."""

    ranked: Any
    gained: Any


def admit(config: CurriculumConfig) -> Callable[[Moment, Batch], Float[Array, " n"]]:
    """The bar of a curriculum of static difficulty, for a selection's scores."""
    pace = pacing.pacing(config.pacing)

    def bar(moment: Moment, pool: Batch) -> Float[Array, " n"]:
        high = pace(moment.progress, config.start, config.until)
        return stages.admit(moment.assets.difficulty[pool.ids], 0.0, high)

    return bar


def ordered(
    config: CurriculumConfig, batch: int, score: Score | None = None
) -> Selection:
    """Draws B of the candidates evenly among those that the pace admits.

    Args:
      config: difficulty and pacing.
      batch: B.
      score: difficulty as a by-product of a forward pass over the candidates; None
        takes the static one of the assets.
    """
    pace, gains = pacing.pacing(config.pacing), progress.learning_progress(BINS)
    learned = config.difficulty == "progress"
    ranked = difficulty.running_ranks(max(RECENT, batch * config.candidates))

    def init(params: Any) -> OrderedState:
        by_product = score is not None or learned
        return OrderedState(
            ranked.init(params) if by_product else (),
            gains.init(params) if learned else (),
        )

    def ranks(
        state: OrderedState, pool: Batch, moment: Moment
    ) -> tuple[Float[Array, " c"], OrderedState]:
        if score is not None:
            values = score(pool, moment)
        elif learned:
            bins = _bins(moment.assets.difficulty[pool.ids])
            values = difficulty.progress(progress.read(state.gained, 30.0).gap, bins)
        else:
            return moment.assets.difficulty[pool.ids], state
        found, after = ranked.apply(state.ranked, values)
        return found, state._replace(ranked=after)

    def choose(
        state: OrderedState, pool: Batch, moment: Moment
    ) -> tuple[Batch, None, Metrics, OrderedState]:
        found, state = ranks(state, pool, moment)
        high = pace(moment.progress, config.start, config.until)
        keys = stages.admit(found, 0.0, high)
        keys += jax.random.gumbel(moment.key, keys.shape)
        _, rows = jax.lax.top_k(keys, batch)
        limits = jnp.asarray(stages.THRESHOLDS)
        stage = stages.stages_of(high.reshape(1), limits)[0]
        seen = stages.stage_metrics(found[rows], stage, limits, 0.0, high)
        metrics = {f"curriculum_{name}": value for name, value in seen.items()}
        return jax.tree.map(lambda x: x[rows], pool), None, metrics, state

    def observe(
        state: OrderedState, batch: Batch, losses: Array, stats: Stats, moment: Moment
    ) -> tuple[Metrics, OrderedState]:
        if not learned:
            return {}, state
        bins = _bins(moment.assets.difficulty[batch.ids])
        means = row_mean(losses, batch.targets)
        _, after = gains.apply(state.gained, bins, means)
        return {}, state._replace(gained=after)

    return Selection(init, choose, observe)


def _bins(ranks: Float[Array, " n"]) -> Array:
    return bins_of(ranks, BINS)
