import collections
import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from uets_jax.build import build, hypers
from uets_jax.measure.flops import parameters
from uets_jax.models import backoff
from uets_jax.models.backoff import backoff_tables
from uets_jax.models.presets import model_config
from uets_jax.models.transformer import make_model
from uets_jax.step import init_state, train_step
from uets_jax.types import IGNORED, Batch

V, L = 12, 16
CONFIG = model_config("modern", "tiny", vocab=V, backoff_order=5, backoff_pairs=8192)


def windows(tokens: np.ndarray) -> Batch:
    """[2, R, L] of a text; the last target of each window is the next one's first."""
    targets = np.append(tokens[1:], IGNORED)
    cut = lambda x: x.reshape(2, -1, L).astype(np.int32)
    zeros = np.zeros_like(cut(tokens))
    return Batch(cut(tokens), cut(targets), zeros[..., 0], zeros)


@pytest.fixture(scope="module")
def text() -> Batch:
    """Of a second-order chain; a tenth of its places is not counted."""
    rng = np.random.default_rng(0)
    table = rng.dirichlet(np.full(V, 0.2), (V, V))
    tokens = [0, 1]
    for _ in range(2046):
        tokens.append(rng.choice(V, p=table[tokens[-2], tokens[-1]]))
    made = windows(np.array(tokens))
    held = rng.random(made.targets.shape) < 0.1
    made = made._replace(targets=np.where(held, IGNORED, made.targets))
    return jax.tree.map(jnp.asarray, made)


@pytest.fixture(scope="module")
def tables(text):
    return jax.tree.map(jnp.asarray, backoff_tables(CONFIG, text))


@pytest.fixture(scope="module")
def model():
    made = make_model(CONFIG)
    jitted = (jax.jit(f) for f in (made.forward, made.logits))
    return made._replace(**dict(zip(("forward", "logits"), jitted, strict=True)))


@pytest.fixture(scope="module")
def params(model, tables):
    return {**model.init(jax.random.key(0)), "backoff": tables}


def grams(row: np.ndarray, order: int) -> list[tuple[int, ...]]:
    """The context of order - 1 tokens at each place; before the row stands -1."""
    padded = np.concatenate([np.full(order, -1), row])
    ends = range(order + 1, len(padded) + 1)
    return [tuple(int(t) for t in padded[e - order + 1 : e]) for e in ends]


class Oracle:
    """Modified Kneser-Ney with dictionaries, n-gram by n-gram."""

    def __init__(self, text: Batch, order: int = 5) -> None:
        rows, targets = (np.asarray(x).reshape(-1, L) for x in text[:2])
        longest: collections.Counter = collections.Counter()
        for row, ahead in zip(rows, targets, strict=True):
            for context, y in zip(grams(row, order), ahead, strict=True):
                if y != IGNORED:
                    longest[*context, int(y)] += 1
        self.counts, self.off = {order: longest}, {}
        for k in range(order - 1, 0, -1):
            self.counts[k] = collections.Counter(g[1:] for g in self.counts[k + 1])
        for k, found in self.counts.items():
            n = collections.Counter(found.values())
            one, two, three, four = (max(n[c], 1) for c in (1, 2, 3, 4))
            y = one / (one + 2 * two)
            off = (1 - 2 * y * two / one, 2 - 3 * y * three / two)
            off = (*off, 3 - 4 * y * four / three)
            tops = (0.95, 1.95, 2.95)
            self.off[k] = [min(max(d, 0.1), t) for d, t in zip(off, tops, strict=True)]
        self.after = {k: collections.defaultdict(dict) for k in self.counts}
        for k, found in self.counts.items():
            for gram, seen in found.items():
                self.after[k][gram[:-1]][gram[-1]] = seen

    def chances(self, context: tuple[int, ...]) -> np.ndarray:
        """Of every token after the context."""
        k, seen = len(context) + 1, self.after[len(context) + 1][context]
        if k == 1:
            p = np.array([seen.get(t, 0) for t in range(V)], float)
            return (p + 1 / V) / (p.sum() + 1)
        below = self.chances(context[1:])
        if not seen:
            return below
        p, total = np.zeros(V), sum(seen.values())
        for token, c in seen.items():
            p[token] = (c - self.off[k][min(c, 3) - 1]) / total
        return p + (1 - p.sum()) * below


def test_chances_are_those_of_kneser_and_ney(model, params, text):
    """Half of them: an untrained gate is even, an untrained head says nothing."""
    oracle = Oracle(text)
    rng = np.random.default_rng(1)
    fresh = rng.integers(0, V, (2, L)).astype(np.int32)
    for tokens in (np.asarray(text.tokens[0, :2]), fresh):
        found = np.exp(model.logits(params, jnp.asarray(tokens)))
        counts = [[oracle.chances(g) for g in grams(row, 5)] for row in tokens]
        wanted = 0.5 / V + 0.5 * np.array(counts)
        np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=1e-6)
        np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)


def test_losses_and_by_products_are_those_of_the_mixture(model, params, text):
    batch = jax.tree.map(lambda x: x[0, :4], text)
    rng = np.random.default_rng(0)
    draw = lambda x: jnp.asarray(0.5 * rng.normal(size=x.shape), x.dtype)
    own = {name: jax.tree.map(draw, params[name]) for name in ("head", "blend")}
    log_p = np.asarray(model.logits({**params, **own}, batch.tokens), np.float64)
    p = np.exp(log_p)
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-5)
    losses, stats = model.forward({**params, **own}, batch)
    known = np.asarray(batch.targets != IGNORED)
    y = np.maximum(batch.targets, 0)[..., None]
    wanted = -np.take_along_axis(log_p, y, -1)[..., 0]
    np.testing.assert_allclose(losses, np.where(known, wanted, 0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(stats.entropy, -(p * log_p).sum(-1), rtol=1e-4)
    np.testing.assert_allclose(stats.collision, (p * p).sum(-1), rtol=1e-4)


def test_a_gate_that_is_open_leaves_the_network_alone(model, params, text):
    batch = jax.tree.map(lambda x: x[0, :4], text)
    plain = make_model(model_config("modern", "tiny", vocab=V))
    head = {"w": jax.random.normal(jax.random.key(1), params["head"]["w"].shape)}
    blend = {**params["blend"], "b": jnp.float32(40)}
    found = model.forward({**params, "head": head, "blend": blend}, batch)[0]
    rest = {n: x for n, x in params.items() if n not in ("backoff", "blend")}
    wanted = plain.forward({**rest, "head": head}, batch)[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_the_gate_opens_to_whoever_is_right(model, params, text):
    """Where the counts know the text, less of the loss if the network has less."""
    batch = jax.tree.map(lambda x: x[0], text)
    loss = lambda b: model.forward(
        {**params, "blend": {**params["blend"], "b": b}}, batch
    )
    slope = jax.grad(lambda b: loss(b)[0].sum())(jnp.float32(0))
    assert slope > 0


def test_its_numbers_are_counted(params):
    assert sum(x.size for x in jax.tree.leaves(params)) == parameters(CONFIG)


def test_before_counts_every_token_is_equally_likely(model, text):
    fresh = model.init(jax.random.key(0))
    batch = jax.tree.map(lambda x: x[0], text)
    losses, stats = model.forward(fresh, batch)
    known = batch.targets != IGNORED
    np.testing.assert_allclose(losses, jnp.where(known, np.log(V), 0), rtol=1e-5)
    np.testing.assert_allclose(stats.entropy, np.log(V), rtol=1e-5)


def test_of_too_many_ngrams_the_rarest_go():
    rng = np.random.default_rng(0)
    grams, seen = np.unique(
        rng.integers(0, 99, 4000, np.uint64) << 32
        | rng.integers(0, 9, 4000, np.uint64),
        return_counts=True,
    )
    seen = 1 + seen % 4
    whole, cut = (backoff.lists_of(grams, seen, size) for size in (1024, 512))
    assert len(seen) > 512 > (seen > 2).sum() > 0
    assert (seen > 1).sum() > 512
    kept = int(cut["start"][-1])
    assert kept == 512
    assert {*cut["share"]} < {*whole["share"]}
    assert seen[backoff.most_seen(seen, np.arange(len(seen)), 512)].min() == 2
    assert cut["share"].sum() < whole["share"].sum()


def test_a_table_is_full_where_there_are_enough_ngrams():
    """256 places: all of 256 n-grams, 256 of 257, whichever counts these have."""
    for many, twice in ((256, 0), (257, 0), (400, 100), (400, 300)):
        grams = np.arange(many, dtype=np.uint64) << np.uint64(32 - 3)
        seen = np.where(np.arange(many) < twice, 2, 1)
        found = backoff.lists_of(grams, seen, 256)
        assert np.count_nonzero(found["share"]) == 256
        kept = backoff.most_seen(seen, np.arange(many)[::-1], 256)
        assert seen[kept].sum() == np.sort(seen)[-256:].sum()
        assert (np.diff(kept) > 0).all()


def test_of_equal_ngrams_whole_contexts_go():
    grams = np.repeat(np.arange(100, dtype=np.uint64) << 32, 4)
    grams += np.tile(np.arange(4, dtype=np.uint64), 100)
    seen = np.ones(400, int)
    kept = backoff.most_seen(
        seen, (grams >> np.uint64(32)).astype(np.uint32) * backoff.MIXED, 256
    )
    _, left = np.unique(grams[kept] >> np.uint64(32), return_counts=True)
    assert (left == 4).all()


def test_buckets_and_marks_tell_all_hashes_apart():
    hashes = np.random.default_rng(0).integers(0, 1 << 32, 4096, np.uint32)
    for size in (1 << 8, 1 << 21):
        bucket, mark = backoff.bucket_of(hashes, size)
        assert 0 <= bucket.min() <= bucket.max() < size
        assert mark.max() < 1 << 24
        bits = 33 - size.bit_length()
        whole = bucket.astype(np.uint32) << bits | mark.astype(np.uint32)
        np.testing.assert_array_equal(whole, hashes)


def test_a_text_of_which_nothing_is_counted_leaves_all_tokens_equally_likely(text):
    none = text._replace(targets=jnp.full_like(text.targets, IGNORED))
    tables = backoff_tables(CONFIG, none)
    np.testing.assert_allclose(tables["order2"]["chance"], 1 / V, rtol=1e-6)
    assert not any(tables[f"order{k}"]["start"].any() for k in (3, 4, 5))


def test_the_most_frequent_of_a_list_come_first(tables):
    lists = tables["order3"]
    start, share = (np.asarray(lists[name]) for name in ("start", "share"))
    for low, high in zip(start[:-1].astype(int), start[1:].astype(int), strict=True):
        assert (np.diff(share[low:high]) <= 0).all()


def test_no_logit_depends_on_a_later_token(model, params):
    tokens = jax.random.randint(jax.random.key(3), (2, L), 0, V)
    before = model.logits(params, tokens)
    after = model.logits(params, tokens.at[:, 9].set((tokens[:, 9] + 1) % V))
    np.testing.assert_array_equal(before[:, :9], after[:, :9])
    assert jnp.abs(before[:, 9] - after[:, 9]).max() > 0


def test_masked_documents_share_no_context(text, key):
    config = dataclasses.replace(CONFIG, mask_documents=True)
    model, half = make_model(config), np.arange(L) >= L // 2
    segments = jnp.broadcast_to(jnp.int32(half), text.tokens.shape)
    text = text._replace(segments=segments)
    tables = backoff_tables(config, text)
    params = {**model.init(key), "backoff": tables}
    forward = jax.jit(model.forward)
    batch = jax.tree.map(lambda x: x[0], text)
    cut = batch._replace(
        tokens=batch.tokens[:, L // 2 :],
        targets=batch.targets[:, L // 2 :],
        segments=batch.segments[:, L // 2 :],
    )
    found = forward(params, batch)[0][:, L // 2 :]
    np.testing.assert_allclose(found, forward(params, cut)[0], rtol=1e-5)


def test_tables_are_not_trained_and_have_no_moments(tiny, text, tables):
    config = dataclasses.replace(tiny, model=CONFIG)
    program = build(config)
    fill = lambda params: {**params, "backoff": tables}
    state = init_state(program, hypers(config), 0, fill)
    moments = {x.shape for x in jax.tree.leaves(state.opt)}
    assert tables["order5"]["start"].shape not in moments
    assert tables["order2"]["chance"].shape not in moments
    assert state.params["head"]["w"].shape in moments
    batch = jax.tree.map(lambda x: x[0], text)
    new, metrics = jax.jit(lambda s, b: train_step(program, s, b))(state, batch)
    chex.assert_trees_all_equal(new.params["backoff"], tables)
    assert metrics["grad_norm"] > 0
    assert optax.tree.norm(new.params["head"]) > 0
    assert new.params["blend"]["b"] != 0
