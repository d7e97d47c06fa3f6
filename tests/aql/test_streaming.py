"""The streaming selection: who is drawn, in which order, with which weights."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.aql import merit, streaming
from uets_jax.aql.adapters import bandit, last_layer
from uets_jax.aql.assets import BUCKETS, Assets, Knobs, Scale, Text, knobs
from uets_jax.aql.merit import BARRED
from uets_jax.aql.parts import Bandit
from uets_jax.aql.streaming import UNSEEN, aql, falling
from uets_jax.component import Selection
from uets_jax.config import KnobsConfig, SelectConfig
from uets_jax.measure.jaxpr import count
from uets_jax.selection import buckets
from uets_jax.selection.blind import BlindState
from uets_jax.selection.lexical import LexicalState
from uets_jax.selection.novelty import NoveltyConfig
from uets_jax.types import Batch, Moment, Stats

B, L, WIDTH, VOCAB = 4, 16, 6, 5000
NAN = 4999  # as first token: likeness NaN


@pytest.fixture(autouse=True)
def told_by_tokens(monkeypatch):
    """A window's first two tokens are its likeness and its lack of naturalness."""

    def likeness(state, tokens, eot, run):
        first = tokens[:, 0]
        return jnp.where(first == NAN, jnp.nan, first / 100.0)

    monkeypatch.setattr(merit.quality, "likeness", likeness)
    monkeypatch.setattr(
        merit.quality, "order", lambda s, t, tokens, *_: -tokens[:, 1] / 100.0
    )


def rows(likeness, lack=0.0, start: int = 0, seed: int | None = None) -> Batch:
    """Windows of these scores, with ids from `start`; their words are their own."""
    first = np.round(100 * np.asarray(likeness)).astype(np.int32)
    n = len(first)
    tokens = np.random.default_rng(start if seed is None else seed).integers(
        0, VOCAB, (n, L)
    )
    tokens[:, 0] = first
    tokens[:, 1] = np.round(100 * np.broadcast_to(lack, (n,)))
    tokens = tokens.astype(np.int32)
    ids = np.arange(start, start + n, dtype=np.int32)
    given = tokens, np.roll(tokens, -1, 1), ids, np.zeros_like(tokens)
    return Batch(*map(jnp.asarray, given))


def unit(bins: int) -> Scale:
    edges = jnp.linspace(-1.0, 1.0, bins + 1)[1:-1]
    return Scale(jnp.float32(0.0), jnp.float32(1.0), edges)


NONE = jnp.zeros(1)
TEXT = Text(
    jnp.int32(0),
    BlindState(NONE > 0, NONE, jnp.zeros(1, jnp.int32), jnp.zeros(1, jnp.int32)),
    jnp.float32(1.0),
    unit(4),
    LexicalState(NONE),
    unit(8),
)


def moment(done: float = 0.0, seed: int = 0, text: Text = TEXT, **changes) -> Moment:
    plain = {"temperature": 0.0, "final_temperature": 0.0, "novelty": 6.0}
    plain |= {"copied": 0.0, **changes}
    assets = Assets(knobs(KnobsConfig(**plain)), text)
    return Moment(None, assets, jnp.float32(done), jax.random.key(seed))


BARE = SelectConfig(
    method="aql",
    mode="target",
    run=1,
    buffer=12,
    novelty=False,
    buckets=False,
    uncertainty=False,
    policy=False,
)


def make(batch: int = B, admit=None, posterior=None, learned=None, **on) -> Selection:
    config = dataclasses.replace(BARE, **on)
    return aql(config, batch, L, admit, posterior, learned)


def stats(batch: int, seed: int = 0) -> Stats:
    draw = np.random.default_rng(seed).uniform
    each = lambda low, high: jnp.asarray(draw(low, high, (batch, L)), jnp.float32)
    features = jnp.asarray(draw(-1, 1, (batch, L, WIDTH)), jnp.float32)
    return Stats(features, each(1, 2), each(0, 3), each(0.05, 0.5))


def losses(batch: int, seed: int = 0) -> jax.Array:
    found = np.random.default_rng(seed).uniform(1, 3, (batch, L))
    return jnp.asarray(found, jnp.float32)


def stepped(part: Selection, state, pool: Batch, now: Moment):
    """(ids drawn, metrics, state) of choose and observe."""
    batch, _, metrics, state = jax.jit(part.choose)(state, pool, now)
    rows = batch.ids.shape[0]
    later = now._replace(key=jax.random.fold_in(jax.random.clone(now.key), 1))
    told, state = jax.jit(part.observe)(state, batch, losses(rows), stats(rows), later)
    return batch.ids.tolist(), metrics | told, state


def test_the_best_are_drawn_first_and_the_rest_is_kept():
    part = make()
    score = np.random.default_rng(0).permutation(10) / 4
    ids, metrics, state = stepped(part, part.init(None), rows(score), moment())
    best = np.argsort(-score)
    assert ids == best[:B].tolist()
    assert float(metrics["select_score"]) == pytest.approx(score[best[:B]].mean())
    kept = np.asarray(state.buffer.rows.batch.ids)[np.asarray(state.buffer.keys) > -1e9]
    assert set(kept.tolist()) == set(best[B:].tolist())
    ids, metrics, _ = stepped(part, state, rows([0.0] * 10, start=50), moment())
    assert ids == best[B : 2 * B].tolist()
    assert float(metrics["select_age"]) == 1.0


@pytest.mark.parametrize("mode", ["target", "blind"])
def test_nothing_unnatural_is_drawn_while_natural_text_is_offered(mode):
    part, text = make(mode=mode), TEXT
    if mode == "blind":
        text = TEXT._replace(lexical=None, likeness=None)
    state, rng = part.init(None), np.random.default_rng(0)
    for step in range(15):
        wild = rng.permutation(16) < 10
        pool = rows(np.where(wild, 20.0, rng.uniform(0, 2, 16)), 1.5 * wild, 16 * step)
        now = moment(step / 15, step, text, temperature=2.0, final_temperature=1.0)
        batch, weights, metrics, state = part.choose(state, pool, now)
        assert weights is None
        assert (batch.tokens[:, 1] == 0).all()
        assert float(metrics["select_barred"]) == pytest.approx(10 / 16)
        assert float(metrics["select_score"]) > -10


def test_what_is_unnatural_comes_by_how_much():
    part = make(batch=3)
    pool = rows([0.0, 9.0, 9.0, 9.0, 9.0], [0.0, 5.0, 1.2, 3.0, 30.0])
    ids, metrics, state = stepped(part, part.init(None), pool, moment())
    assert ids == [0, 2, 3]
    assert float(metrics["select_score"]) >= -BARRED  # the metric is held in bounds
    worst = -BARRED * (1 + 9.0)  # a deficit above 9 counts as 9
    assert float(state.buffer.keys[state.buffer.keys > -jnp.inf].min()) >= 1.01 * worst


def test_the_threshold_of_naturalness_is_a_knob():
    pool = rows([5.0, 1.0, 1.0, 1.0, 0.5], [0.8, 0.0, 0.0, 0.0, 0.0])
    part = make()
    assert 0 in stepped(part, part.init(None), pool, moment(natural=-1.0))[0]
    assert 0 not in stepped(part, part.init(None), pool, moment(natural=-0.5))[0]
    part = make(natural=False)
    assert stepped(part, part.init(None), rows([5.0] * 5, 9.0), moment())[0]


def ngrams(tokens: np.ndarray, stride: int) -> list[bytes]:
    order = NoveltyConfig().order
    return [tokens[i : i + order].tobytes() for i in range(0, L - order + 1, stride)]


def test_merit_and_buffer_are_an_offline_top_k_of_the_documented_score():
    part = make(novelty=True)
    state, held, seen = part.init(None), [], set()
    rng = np.random.default_rng(1)
    settings = {"novelty": 3.0, "copied": 0.3, "staleness": 0.0137}
    old = None
    for step in range(25):
        pool = rows(rng.permutation(300)[:10] / 100, start=10 * step)
        if old is not None and step % 3 == 0:  # copies of earlier text, better scored
            tokens = (
                pool.tokens.at[:3, 1:]
                .set(old[:3, 1:])
                .at[:3, 0]
                .set(jnp.array([400, 401, 402]))
            )
            pool = pool._replace(tokens=tokens)
        old = pool.tokens if step % 4 == 0 or old is None else old
        tokens = np.asarray(pool.tokens)
        offered = zip(pool.ids.tolist(), tokens, strict=True)
        held += [(i, row, row[0] / 100, step) for i, row in offered]

        def worth(one, step=step):
            _, row, merit, birth = one
            share = np.mean([gram in seen for gram in ngrams(row, 4)])
            return merit - 3.0 * max(share - 0.3, 0.0) / 0.7 - 0.0137 * (step - birth)

        held = sorted(held, key=worth, reverse=True)[:12]
        ids, metrics, state = stepped(part, state, pool, moment(**settings))
        assert ids == [one[0] for one in held[:B]], step
        scores = [worth(one) for one in held[:B]]
        assert float(metrics["select_score"]) == pytest.approx(
            np.mean(scores), abs=1e-4
        )
        for _, row, _, _ in held[:B]:
            seen.update(ngrams(row, 1))
        held = held[B:]
    kept = np.asarray(state.buffer.keys) > -np.inf
    ids = np.asarray(state.buffer.rows.batch.ids)[kept]
    assert sorted(ids.tolist()) == sorted(one[0] for one in held)


def test_copies_of_what_was_trained_on_come_last():
    part = make(novelty=True)
    first = rows([3.0] * B)
    ids, metrics, state = stepped(part, part.init(None), first, moment())
    assert sorted(ids) == [0, 1, 2, 3]
    assert float(metrics["select_seen"]) == 0.0
    fresh = rows([0.5] * 6, start=20)
    again = first._replace(ids=first.ids + 10)
    pool = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), again, fresh)
    ids, metrics, state = stepped(part, state, pool, moment())
    assert set(ids) < {*range(20, 26)}
    ids, metrics, _ = stepped(part, state, rows([-2.9, -9.0], start=40), moment())
    assert {*range(20, 26)} > {*ids[:2]}
    assert ids[2] == 40  # at -2.9, before 3 - 6 = -3
    assert ids[3] in range(10, 14)
    assert float(metrics["select_seen"]) == pytest.approx(1 / 4)


def test_a_twin_in_the_buffer_falls_behind_once_the_other_is_trained_on():
    part = make(batch=1, novelty=True)
    pool = rows([3.0, 3.0, 1.0])
    pool = pool._replace(tokens=pool.tokens.at[1].set(pool.tokens[0]))
    ids, _, state = stepped(part, part.init(None), pool, moment())
    assert ids in ([0], [1])
    ids, _, state = stepped(part, state, rows([0.0], start=9), moment())
    assert ids == [2]


def test_a_score_that_is_not_a_number_never_gets_in():
    part = make()
    state = part.init(None)
    for step in range(6):
        score = np.linspace(0, 1, 20)
        score[step::3] = NAN / 100
        pool = rows(score, start=20 * step)
        bad = set(pool.ids[pool.tokens[:, 0] == NAN].tolist())
        ids, metrics, state = stepped(part, state, pool, moment(temperature=1.0))
        assert not bad & {*ids, *state.buffer.rows.batch.ids.tolist()}
        assert np.isfinite(float(metrics["select_score"]))


def test_an_order_that_is_not_a_number_is_no_excuse(monkeypatch):
    monkeypatch.setattr(
        merit.quality,
        "order",
        lambda s, t, tokens, *_: jnp.where(tokens[:, 1] > 0, jnp.nan, 0.0),
    )
    part = make()
    pool = rows([9.0, 9.0, 1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    assert sorted(stepped(part, part.init(None), pool, moment())[0]) == [2, 3, 4, 5]


@pytest.mark.parametrize(("ratio", "looked_at"), [(0.5, 8), (0.25, 4), (1.0, 16)])
def test_the_ratio_is_a_prefix_of_the_pool(ratio, looked_at):
    part = make()
    pool = rows(np.arange(16) / 10)
    ids, _, state = stepped(part, part.init(None), pool, moment(ratio=ratio))
    assert ids == [*range(looked_at - 1, looked_at - 1 - B, -1)]
    worst = float(state.buffer.keys[state.buffer.keys > -jnp.inf].min(initial=0.0))
    assert (worst == UNSEEN) == (looked_at < 16)


def test_a_curriculums_bar_lies_between_the_admitted_and_the_unnatural():
    bar = lambda moment, pool: jnp.where(pool.ids % 2 == 1, -2e6, 0.0)
    part = make(batch=6, admit=bar)
    lack = [0.0, 0.0, 1.1, 0.0, 1.1, 1.1, 0.0]
    pool = rows([1.0, 9.0, 20.0, 8.0, 19.0, 20.0, 0.5], lack)
    ids, _, _ = stepped(part, part.init(None), pool, moment())
    assert ids[:2] == [0, 6]
    assert set(ids[2:4]) == {1, 3}
    assert set(ids[4:]) == {2, 4}  # 5 is both


def test_the_draw_is_broad_at_first_and_takes_the_best_at_last():
    part = make()
    pool = rows(np.arange(12) / 10)
    draw = jax.jit(
        jax.vmap(
            lambda key, now: (
                part.choose(part.init(None), pool, now._replace(key=key))[0].ids
            ),
            in_axes=(0, None),
        )
    )
    keys = lambda: jax.random.split(jax.random.key(5), 400)
    hot = {"temperature": 1.0, "final_temperature": 0.0, "anneal": 0.5}
    first, last = draw(keys(), moment(0.0, **hot)), draw(keys(), moment(0.5, **hot))
    assert len(np.unique(np.asarray(first), axis=0)) > 300
    assert (np.asarray(last) == [11, 10, 9, 8]).all()
    # Gumbel top-1: the first of each draw follows the softmax of the scores
    share = np.bincount(np.asarray(first)[:, 0], minlength=12) / 400
    expected = np.exp(np.arange(12) / 10)
    np.testing.assert_allclose(share, expected / expected.sum(), atol=0.06)


def test_the_temperature_falls_along_a_line():
    found = knobs(KnobsConfig(temperature=2.0, final_temperature=0.5, anneal=0.6))
    at = lambda p: float(falling(found, jnp.float32(p)))
    assert [at(p) for p in (0.0, 0.3, 0.6, 1.0)] == pytest.approx([2.0, 1.25, 0.5, 0.5])
    at_once = found._replace(anneal=jnp.float32(0.0))
    assert float(falling(at_once, jnp.float32(0.1))) == 0.5


def known_buckets(**fields) -> buckets.BucketState:
    """Records of many rows, with these values in the first buckets."""
    state = buckets.init(BUCKETS)
    many = jnp.full(BUCKETS, 1e5)
    put = lambda values: jnp.zeros(BUCKETS).at[: len(values)].set(jnp.asarray(values))
    scores = {k: put(v) for k, v in fields.items() if k in state.scores._fields}
    own = {k: put(v) for k, v in fields.items() if k not in state.scores._fields}
    return state._replace(seen=many, scores=state.scores._replace(**scores), **own)


def in_buckets(n: int) -> Batch:
    """n windows, the i-th of them in bucket 4 (i % 8): lack of naturalness 1."""
    cells = np.arange(n) % 8
    return rows(np.linspace(-0.9, 0.9, 8)[cells] + 1.0, 1.0)


KINDS = unit(8)
SHIFTED = TEXT._replace(likeness=KINDS._replace(edges=KINDS.edges + 1.0))


def test_kinds_of_text_are_cells_of_likeness_and_order():
    part = make(batch=8, buckets=True)
    _, _, _, state = part.choose(part.init(None), in_buckets(8), moment(text=SHIFTED))
    order = state.drawn.batch.ids
    np.testing.assert_array_equal(state.drawn.bucket, 4 * order)
    _, after = part.observe(
        state, state.drawn.batch, losses(8), stats(8), moment(text=SHIFTED)
    )
    seen = np.zeros(BUCKETS)
    seen[::4] = 1
    np.testing.assert_array_equal(after.buckets.seen, seen)
    slow = np.asarray(buckets.records(after.buckets).loss_slow)
    np.testing.assert_allclose(slow[4 * order], losses(8).mean(1), rtol=1e-5)
    assert int(after.now) == 1


@pytest.mark.parametrize("knob", ["progress", "uncertainty"])
def test_what_is_known_of_a_bucket_moves_its_text(knob):
    part = make(batch=2, buckets=True, uncertainty=True)
    values = np.zeros(BUCKETS)
    values[8] = 1.0  # the third kind
    if knob == "progress":
        known = known_buckets(loss_slow=values + 2.0, loss_fast=np.full(BUCKETS, 2.0))
    else:
        known = known_buckets(bald=values)
    state = part.init(None)._replace(buckets=known)
    given = state, in_buckets(16)
    ids = lambda **on: part.choose(*given, moment(text=SHIFTED, **on))[0].ids.tolist()
    assert sorted(ids(**{knob: 5.0})) == [2, 10]
    assert sorted(ids()) == [7, 15]
    assert sorted(ids(**{knob: -5.0})) == [7, 15]


def pool_mode():
    """(selection, state, pool, a quantity of each row that follows its chance)."""
    part = make(batch=16, mode="pool", buckets=True)
    norms = np.zeros(BUCKETS)
    norms[::4] = np.linspace(0.5, 4.0, 8)
    state = part.init(None)._replace(buckets=known_buckets(gnorm=norms))
    pool = in_buckets(64)
    values = np.arange(64) % 8 + np.random.default_rng(0).normal(size=64)
    return part, state, pool, values


def estimates(part, state, pool, values, draws: int = 3000):
    """Weighted and plain means of `values` over many draws, and the weights."""
    now = moment(text=SHIFTED, temperature=1.0, final_temperature=1.0, floor=0.2)

    def one(key):
        batch, weights, _, _ = part.choose(state, pool, now._replace(key=key))
        return batch.ids, weights

    keys = jax.random.split(jax.random.key(7), draws)
    ids, weights = map(np.asarray, jax.jit(jax.vmap(one))(keys))
    found = values[ids]
    return (weights * found).mean(1), found.mean(1), weights


def test_in_mode_pool_the_weights_undo_the_bias(monkeypatch):
    part, state, pool, values = pool_mode()
    with monkeypatch.context() as patch:
        patch.setattr(streaming.reweight, "normalised", lambda weights: weights)
        weighted, plain, _ = estimates(part, state, pool, values)
    error = weighted.std() / np.sqrt(len(weighted))
    assert abs(weighted.mean() - values.mean()) < 4 * error
    assert error < 0.02
    assert plain.mean() - values.mean() > 0.4  # what it would be without them


def test_in_mode_pool_weights_are_1_on_average():
    part, state, pool, values = pool_mode()
    weighted, plain, weights = estimates(part, state, pool, values, 1000)
    np.testing.assert_allclose(weights.mean(1), 1.0, rtol=1e-5)
    assert weights.min() > 0
    assert abs(weighted.mean() - values.mean()) < 0.3 * (plain.mean() - values.mean())


def test_in_mode_pool_nothing_is_barred_and_nothing_kept():
    part = make(batch=B, mode="pool", buckets=True)
    pool = rows([0.0] * B, 50.0)
    batch, weights, metrics, state = part.choose(
        part.init(None), pool, moment(temperature=1.0)
    )
    assert sorted(batch.ids.tolist()) == [0, 1, 2, 3]
    np.testing.assert_allclose(weights, 1.0, rtol=1e-6)
    assert float(metrics["select_barred"]) == 0.0
    assert (state.buffer.keys == -jnp.inf).all()


PARTS = ("novelty", "buckets", "posterior", "policy", "switch")


def everything(**off) -> Selection:
    posterior = None if off.get("posterior") else last_layer(WIDTH, VOCAB)
    learned = None if off.get("policy") else bandit()
    on = {name: not off.get(name) for name in ("novelty", "buckets", "switch")}
    return make(
        posterior=posterior, learned=learned, uncertainty=True, policy=True, **on
    )


@pytest.mark.parametrize("name", PARTS)
def test_each_part_can_be_switched_off_and_leaves_no_state(name):
    part = everything(**{name: True})
    state = part.init(None)
    off = [n for n in PARTS if getattr(state, n) is None]
    assert (
        "taken/select_scoring"
        in jax.eval_shape(part.choose, state, rows([0.0] * 8), moment())[2]
    ) == (name != "switch")
    assert off == [name]
    _, metrics, after = stepped(part, state, rows(np.linspace(0, 1, 8)), moment())
    assert getattr(after, name) is None
    assert ("select_arm" in metrics) == (name != "policy")
    assert ("select_bald" in metrics) == (name != "posterior")
    assert all(np.isfinite(float(v)) for v in metrics.values())


@pytest.mark.parametrize("mode", ["target", "pool"])
def test_the_state_keeps_its_form_and_jit_changes_nothing(mode):
    part = everything()
    if mode == "pool":
        part = make(mode=mode, buckets=True, novelty=True)
    now = lambda seed: moment(0.2, seed, temperature=1.0)
    pool = rows(np.linspace(0, 2, 8))
    start = part.init(None)

    def turn(state):
        batch, weights, metrics, state = part.choose(state, pool, now(3))
        told, state = part.observe(state, batch, losses(B), stats(B), now(4))
        return (batch, weights, metrics | told), state

    out, state = turn(start)
    chex.assert_trees_all_equal_shapes_and_dtypes(start, state)
    first, second = jax.jit(turn)(start), jax.jit(turn)(start)
    chex.assert_trees_all_equal(first, second)
    chex.assert_trees_all_close(first, (out, state), rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_equal_shapes_and_dtypes(start, jax.jit(turn)(state)[1])


def test_a_bandit_is_told_what_was_gained_and_changes_the_knobs():
    values = []

    def update(state, value, key):
        values.append(float(value))
        return {"pulled": state}, state + 1

    def hotter(state, given: Knobs) -> Knobs:
        return given._replace(temperature=given.temperature + state)

    part = make(
        buckets=True, learned=Bandit(lambda p: jnp.float32(0.0), hotter, update)
    )
    state = part.init(None)
    for step in range(3):
        pool = rows([0.0] * B, start=10 * step)  # all of one kind
        batch, _, metrics, state = part.choose(state, pool, moment(temperature=1.0))
        assert float(metrics["select_temperature"]) == pytest.approx(1.0 + step)
        loss = jnp.full((B, L), 3.0 - step)
        _, state = part.observe(state, batch, loss, stats(B), moment())
    assert values[0] == 0.0  # nothing was usual yet
    assert values[1] == pytest.approx(3.0 - 2.0, rel=1e-4)
    keep = (1 - buckets.SLOW) ** B  # debiased mean of the losses 3 and 2
    usual = (3.0 * keep + 2.0) / (keep + 1)
    assert values[2] == pytest.approx(usual - 1.0, rel=1e-3)


def test_without_a_sample_naturalness_is_the_quality():
    text = TEXT._replace(lexical=None, likeness=None)
    part = make(mode="blind")
    pool = rows([9.0, 0.0, 5.0, 3.0, 1.0], [0.5, 0.1, 0.3, 0.2, 0.4])
    ids = stepped(part, part.init(None), pool, moment(text=text))[0]
    assert ids == [1, 3, 2, 4]
    off = make(lexical=False)
    assert stepped(off, off.init(None), pool, moment())[0] == [1, 3, 2, 4]


def test_scoring_that_does_not_pay_is_switched_off_and_counted():
    part = make(buckets=True, switch=True)
    off = part.init(None)._replace(gain=jnp.zeros(()))
    pool = rows([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], start=5)
    counted = count(jax.make_jaxpr(part.choose)(off, pool, moment()))
    assert [*counted.branches] == ["select_scoring"]
    flops = lambda n: counted.total({"select_scoring": n})["forward_backward"].total
    assert flops(1) > flops(0)
    choose, observe = jax.jit(part.choose), jax.jit(part.observe)
    state, asked = off, []
    for _ in range(20):
        batch, _, metrics, state = choose(state, pool, moment())
        asked.append(int(metrics["taken/select_scoring"]))
        if asked[-1]:
            assert batch.ids.tolist() == [10, 9, 8, 7]
        else:
            assert not state.drawn.merit.any()
        state = state._replace(gain=jnp.zeros(()), buffer=off.buffer)
        told, state = observe(state, batch, losses(B), stats(B), moment())
        assert float(told["select_gain"]) == 0.0
    assert asked == [1] * 8 + [0] * 12  # a decision rests on eight measurements
