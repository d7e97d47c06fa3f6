"""AQL v2: which of the offered windows are trained on, chosen by what is nearly free.

A step offers C fresh windows, keeps the best so far in a buffer of k rows, draws B of
it, trains, and reads off the training forward what it learned about that kind of text.
Nothing is forwarded but what is trained on. With the default knobs the choice rests on
the text and on what was trained on; the records of kinds of text and the posterior are
kept and told, and weigh as much as `knobs.progress` and `knobs.uncertainty` say, 0.

Who decides what, in this order (the conflict rule):

1. Order bars: what is not natural text comes last, by how unnatural it is.
2. The curriculum bars: what is harder than the pace admits comes behind what is not,
   and before what is unnatural: the nearest to the pace first. It orders nothing among
   what it admits, and judges a window once, when it is offered.
3. Selection orders what is left, in deviations of the score:
       quality - novelty * (share of n-grams trained on before, beyond `copied`)
               + progress * (learning progress of the bucket)
               + uncertainty * (Laplace uncertainty) - staleness * age.
4. The draw adds Gumbel noise that falls with time: broad first, the best last.
5. Weights are those of the draw alone: none in modes `target` and `blind`, where the
   bias is the purpose. Mode `pool` draws by the expected norm of the head's gradient
   alone, bars and keeps nothing, and weighs by 1 / inclusion probability; cut at 5 and
   1 on average, the weights are nearly unbiased (see `reweight.normalised`).
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from uets_jax.aql.assets import BUCKETS, Knobs
from uets_jax.aql.merit import BARRED, merit
from uets_jax.aql.parts import Admit, Bandit, Posterior
from uets_jax.component import Selection
from uets_jax.config import SelectConfig
from uets_jax.measure.scopes import branch
from uets_jax.selection import buckets, buffer, novelty, reweight
from uets_jax.selection.buckets import BucketState
from uets_jax.selection.buffer import BufferState
from uets_jax.selection.novelty import NoveltyState
from uets_jax.selection.scores import RowScores, row_scores
from uets_jax.selection.switch import SwitchState, asks, choice_gain, switch
from uets_jax.types import IGNORED, Batch, Metrics, Moment, Stats

SWITCH = switch()
COST = 0.01  # of scoring, as a share of a step; see results/aql.overhead.json
UNSEEN = -1e9  # score of what is not looked at


class Offered(NamedTuple):
    """Rows of the buffer or of a batch: windows, and what was found out of them.

    bucket: kind of text.
    merit:  score when it was offered; what repetition takes off comes later.
    seen:   share of the n-grams that had been trained on at the last look.
    """

    batch: Batch
    bucket: Int[Array, " n"]
    merit: Float[Array, " n"]
    seen: Float[Array, " n"]


class AqlState(NamedTuple):
    """A part that is switched off is `None`.

    now:   calls so far.
    drawn: what is being trained on.
    gain:  learning progress of what was drawn over that of what was offered.
    """

    now: Int[Array, ""]
    buffer: BufferState
    drawn: Offered
    novelty: NoveltyState | None
    buckets: BucketState | None
    posterior: Any
    policy: Any
    switch: SwitchState | None
    gain: Float[Array, ""]


def aql(
    config: SelectConfig,
    batch: int,
    length: int,
    admit: Admit | None = None,
    posterior: Posterior | None = None,
    bandit: Bandit | None = None,
) -> Selection:
    """The streaming selection; its moments carry `Assets` with a `text`.

    Args:
      config: which parts are on; its knobs are not read, the assets' are.
      batch: B, rows that are trained on.
      length: L, tokens per window.
      admit: the bar of a curriculum.
      posterior: whose uncertainty scores text.
      bandit: changes the knobs while it goes on.
    """
    parts = _Parts(config, batch, length, admit, posterior, bandit)
    return Selection(parts.init, parts.choose, parts.observe)


def falling(knobs: Knobs, progress: Array) -> Float[Array, ""]:
    """The temperature: a line from the first to the final one, then flat."""
    share = jnp.clip(progress / jnp.maximum(knobs.anneal, 1e-6), 0.0, 1.0)
    return knobs.temperature + share * (knobs.final_temperature - knobs.temperature)


def repetition(seen: Float[Array, " n"], knobs: Knobs) -> Float[Array, " n"]:
    """What is taken off the scores of windows of which so much was trained on.

    Nothing up to the share `copied`: pages that are filled in after one form have many
    n-grams in common and are no copies.
    """
    beyond = jnp.maximum(seen - knobs.copied, 0.0)
    return knobs.novelty * beyond / jnp.maximum(1.0 - knobs.copied, 1e-6)


@dataclasses.dataclass(frozen=True)
class _Parts:
    """The three functions of a selection, over what is on."""

    config: SelectConfig
    batch: int
    length: int
    admit: Admit | None
    posterior: Posterior | None
    bandit: Bandit | None

    def init(self, params: Any) -> AqlState:
        """Nothing seen."""
        example, c = _row(self.length), self.config
        return AqlState(
            now=jnp.zeros((), jnp.int32),
            buffer=buffer.init(c.buffer, example),
            drawn=buffer.init(self.batch, example).rows,
            novelty=novelty.init() if c.novelty else None,
            buckets=buckets.init(BUCKETS) if c.buckets else None,
            posterior=self.posterior and self.posterior.init(params),
            policy=self.bandit and self.bandit.init(params),
            switch=SWITCH.init(params) if c.switch else None,
            gain=jnp.ones(()),
        )

    def choose(
        self, state: AqlState, pool: Batch, moment: Moment
    ) -> tuple[Batch, Array | None, Metrics, AqlState]:
        """Offers the pool to the buffer and draws a batch from it."""
        knobs = moment.assets.knobs
        if self.bandit is not None:
            knobs = self.bandit.knobs(state.policy, knobs)
        rows, told = self._rows(state, pool, moment, knobs)
        temperature = falling(knobs, moment.progress)
        if self.config.mode == "pool":
            drawn, weights = _unbiased(rows, self.batch, temperature, knobs, moment.key)
            told |= {"select_weight": weights.max()}
            left = state.buffer
        else:
            drawn, seen, left = self._draw(state, rows, temperature, knobs, moment.key)
            weights, told = None, told | seen
        batch, memory = drawn.batch, state.novelty
        if memory is not None:
            memory = novelty.remember(memory, batch.tokens, batch.targets != IGNORED)
        metrics = {
            "select_temperature": temperature,
            "select_seen": drawn.seen.mean(),
            "select_barred": (rows.merit < -BARRED / 2).mean(),
        }
        gain = self._gain(state, drawn, rows)
        after = state._replace(buffer=left, drawn=drawn, novelty=memory, gain=gain)
        return batch, weights, metrics | told, after

    def observe(
        self,
        state: AqlState,
        batch: Batch,
        losses: Float[Array, "b l"],
        stats: Stats,
        moment: Moment,
    ) -> tuple[Metrics, AqlState]:
        """Learns from the batch what its kinds of text are worth."""
        metrics, after = {}, state._replace(now=state.now + 1)
        variances, every = None, 1
        if self.posterior is not None:
            variances = self.posterior.variances(state.posterior, stats)
            every = self.posterior.every
            told, after_posterior = self.posterior.update(
                state.posterior, stats, losses, batch.targets
            )
            metrics |= told
            after = after._replace(posterior=after_posterior)
        scores = row_scores(batch.targets, losses, stats, variances, every=every)
        metrics |= {"select_entropy": scores.entropy.mean()}
        if self.posterior is not None:
            metrics |= {"select_bald": scores.bald.mean()}
        if state.buckets is not None:
            records = buckets.update(state.buckets, state.drawn.bucket, scores)
            after = after._replace(buckets=records)
        if state.switch is not None:
            _, turned = SWITCH.apply(state.switch, state.gain, jnp.float32(COST))
            metrics |= {"select_gain": state.gain}
            after = after._replace(switch=turned)
        if self.bandit is not None:
            value = self._gained(state, scores)
            told, policy = self.bandit.update(
                state.policy, value, jax.random.fold_in(moment.key, 1)
            )
            metrics |= told
            after = after._replace(policy=policy)
        return metrics, after

    def _rows(
        self, state: AqlState, pool: Batch, moment: Moment, knobs: Knobs
    ) -> tuple[Offered, Metrics]:
        """The fresh windows, scored unless that was found not to pay."""
        if state.switch is None:
            return self._offer(state, pool, moment, knobs), {}
        none = jnp.zeros(pool.ids.shape[0])
        kind = none.astype(jnp.int32) - 1  # no bucket's
        asked = asks(state.switch)
        rows = branch(
            "select_scoring",
            asked,
            lambda: self._offer(state, pool, moment, knobs),
            lambda: Offered(pool, kind, none, none),
        )
        return rows, {"taken/select_scoring": asked.astype(jnp.int32)}

    def _gain(self, state: AqlState, drawn: Offered, rows: Offered) -> Array:
        """Learning progress of the drawn kinds of text over that of the offered."""
        if state.switch is None or state.buckets is None:
            return state.gain
        gaps = jnp.maximum(buckets.progress(state.buckets), 0.0)
        return choice_gain(gaps[drawn.bucket], gaps[rows.bucket])

    def _offer(
        self, state: AqlState, pool: Batch, moment: Moment, knobs: Knobs
    ) -> Offered:
        """The fresh windows and their scores."""
        c, tokens = self.config, pool.tokens
        key, kind, bar = merit(c, moment.assets.text, knobs, tokens)
        if state.buckets is not None:
            known = buckets.lookup(buckets.records(state.buckets), kind)
            key += knobs.progress * known.progress
            if c.mode == "pool":
                key = jnp.log(jnp.maximum(known.scores.gnorm, 1e-6))
            elif c.uncertainty:
                bald = buckets.records(state.buckets).scores.bald
                mixed = buckets.standardised(bald, state.buckets.seen > 0, 1e-12)
                key += knobs.uncertainty * mixed[kind]
        if c.mode != "pool":
            key += bar
        if self.admit is not None:
            key += self.admit(moment, pool)
        place = jnp.arange(tokens.shape[0])
        looked_at = (place < knobs.ratio * len(place)) & jnp.isfinite(key)
        key = jnp.where(looked_at, key, UNSEEN)
        return Offered(pool, kind, key, self._overlap(state, pool))

    def _draw(
        self,
        state: AqlState,
        rows: Offered,
        temperature: Array,
        knobs: Knobs,
        key: Key[Array, ""],
    ) -> tuple[Offered, Metrics, BufferState]:
        """Puts the fresh rows into the buffer and takes the batch out of it."""
        aged = lambda held: buffer.aged(held, state.now, knobs.staleness)
        held = self._look_again(state, state.buffer, knobs)
        keys = rows.merit - repetition(rows.seen, knobs)
        full = buffer.merge(held, keys, rows, state.now, aged(held))
        drawn, left = buffer.take(
            full, self.batch, state.now, aged(full), temperature, key
        )
        told = {
            "select_score": jnp.maximum(drawn.scores, -BARRED / 4).mean(),
            "select_age": drawn.ages.astype(jnp.float32).mean(),
        }
        return drawn.rows, told, left

    def _overlap(self, state: AqlState, batch: Batch) -> Float[Array, " n"]:
        """Share of the windows' n-grams that were trained on."""
        if state.novelty is None:
            return jnp.zeros(batch.ids.shape[0])
        return novelty.overlap(state.novelty, batch.tokens, batch.targets != IGNORED)

    def _look_again(
        self, state: AqlState, held: BufferState, knobs: Knobs
    ) -> BufferState:
        """The buffer, told what has been trained on since its rows came."""
        rows = held.rows._replace(seen=self._overlap(state, held.rows.batch))
        keys = rows.merit - repetition(rows.seen, knobs)
        keys = jnp.where(held.keys == buffer.EMPTY, buffer.EMPTY, keys)
        return held._replace(rows=rows, keys=keys)

    def _gained(self, state: AqlState, scores: RowScores) -> Float[Array, ""]:
        """How far the batch lies below what is usual in its buckets, nats per token."""
        if state.buckets is None:
            return jnp.zeros(())
        usual = buckets.records(state.buckets).loss_slow[state.drawn.bucket]
        known = state.buckets.seen[state.drawn.bucket] > 0
        return jnp.where(known, usual - scores.loss, 0.0).mean()


def _unbiased(
    rows: Offered, batch: int, temperature: Array, knobs: Knobs, key: Key[Array, ""]
) -> tuple[Offered, Float[Array, " b"]]:
    """B of the rows without replacement, and the weights that undo the bias."""
    merit = rows.merit - repetition(rows.seen, knobs)
    chances = jnp.log(reweight.probabilities(merit, temperature, knobs.floor))
    noisy = chances + jax.random.gumbel(key, chances.shape)
    _, places = jax.lax.top_k(noisy, batch)
    threshold = noisy.at[places].set(-jnp.inf).max()
    weights = reweight.threshold_weights(chances[places], threshold, len(merit))
    return jax.tree.map(lambda x: x[places], rows), reweight.normalised(weights)


def _row(length: int) -> Offered:
    """Shapes of one row."""
    i32 = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.int32)
    number: Any = jax.ShapeDtypeStruct((), jnp.float32)
    one: Any = Batch(i32(length), i32(length), i32(), i32(length))  # pyright: ignore
    return Offered(one, i32(), number, number)  # pyright: ignore
