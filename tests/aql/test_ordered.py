"""A curriculum alone, against NumPy: who is admitted, and what is told of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.aql.assets import Assets, knobs
from uets_jax.aql.ordered import BINS, admit, ordered
from uets_jax.config import CurriculumConfig, KnobsConfig
from uets_jax.curriculum.stages import BARRED
from uets_jax.types import Batch, Moment, Stats

WINDOWS, C, B, L = 200, 32, 8, 4
rng = np.random.default_rng(0)
RANKS = (rng.permutation(WINDOWS) / (WINDOWS - 1)).astype(np.float32)


def pool(seed: int = 0, rows: int = C) -> Batch:
    ids = np.random.default_rng(seed).permutation(WINDOWS)[:rows].astype(np.int32)
    tokens = np.repeat(ids[:, None], L, 1)
    return Batch(*map(jnp.asarray, (tokens, tokens, ids, np.zeros_like(tokens))))


def moment(progress: float, seed: int = 0) -> Moment:
    assets = Assets(knobs(KnobsConfig()), difficulty=jnp.asarray(RANKS))
    return Moment(None, assets, jnp.float32(progress), jax.random.key(seed))


def no_stats(rows: int) -> Stats:
    zeros = jnp.zeros((rows, L))
    return Stats(zeros[..., None], zeros, zeros, zeros)


def config(difficulty: str = "rarity", **fields) -> CurriculumConfig:
    given = {"start": 0.3, "until": 0.5, "pacing": "linear", **fields}
    return CurriculumConfig(difficulty=difficulty, **given)


def high_at(progress: float) -> float:
    return 0.3 + 0.7 * min(progress / 0.5, 1.0)


@pytest.mark.parametrize("progress", [0.0, 0.2, 0.45, 0.5, 1.0])
def test_only_what_the_pace_admits_is_drawn(progress):
    part = ordered(config(), B)
    state = part.init(None)
    for seed in range(6):
        given = pool(seed)
        batch, weights, metrics, after = part.choose(
            state, given, moment(progress, seed)
        )
        assert weights is None
        assert after == state == ((), ())
        ranks, high = RANKS[np.asarray(batch.ids)], high_at(progress)
        offered = np.sort(RANKS[np.asarray(given.ids)])
        if (offered <= high).sum() >= B:
            assert ranks.max() <= high + 1e-6
        else:  # too few: the nearest ones follow
            np.testing.assert_array_equal(np.sort(ranks), offered[:B])
        assert len(set(batch.ids.tolist())) == B
        assert float(metrics["curriculum_stage_high"]) == pytest.approx(high, rel=1e-5)
        assert float(metrics["curriculum_difficulty"]) == pytest.approx(ranks.mean())


def test_within_what_is_admitted_the_draw_is_even():
    part, given = ordered(config(), B), pool()
    state = part.init(None)
    draw = lambda key: part.choose(state, given, moment(0.2)._replace(key=key))[0].ids
    ids = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(3), 2000))
    inside = np.asarray(given.ids)[RANKS[np.asarray(given.ids)] <= high_at(0.2)]
    shares = np.array([(np.asarray(ids) == i).any(1).mean() for i in inside])
    assert len(inside) > B
    np.testing.assert_allclose(shares, B / len(inside), atol=0.05)


def test_the_metrics_show_the_stages_and_their_thresholds():
    part = ordered(config(), B)
    batch, _, metrics, _ = part.choose(part.init(None), pool(), moment(0.4))
    ranks = RANKS[np.asarray(batch.ids)]
    edges = [0.25, 0.5, 0.75]
    for name, edge in zip(("medium", "hard", "edge"), edges, strict=True):
        assert float(metrics[f"curriculum_threshold_{name}"]) == edge
    shares = np.bincount(np.searchsorted(edges, ranks, "right"), minlength=4) / B
    for name, share in zip(("easy", "medium", "hard", "edge"), shares, strict=True):
        assert float(metrics[f"curriculum_share_{name}"]) == pytest.approx(share)
    assert int(metrics["curriculum_stage"]) == 3  # 0.86 is admitted
    assert float(metrics["curriculum_stage_low"]) == 0.0
    stages = [
        int(part.choose(part.init(None), pool(), moment(p))[2]["curriculum_stage"])
        for p in (0.0, 0.15, 0.33, 0.5)
    ]
    assert stages == [1, 2, 3, 3]


def test_the_bar_for_a_selection_is_0_inside_and_far_below_outside():
    given = pool()
    bar = np.asarray(admit(config())(moment(0.2), given))
    ranks = RANKS[np.asarray(given.ids)]
    inside = ranks <= high_at(0.2)
    assert 0 < inside.sum() < C
    assert (bar[inside] == 0).all()
    beyond = -BARRED * (1 + ranks - high_at(0.2))
    np.testing.assert_allclose(bar[~inside], beyond[~inside], rtol=1e-5)


def test_a_by_product_is_ranked_among_those_of_late():
    score = lambda pool, moment: pool.ids.astype(jnp.float32) + moment.params
    part = ordered(config("loss", start=0.25), B, score)
    state, first = part.init(None), pool(0)
    batch, _, metrics, state = part.choose(
        state, first, moment(0.0)._replace(params=jnp.float32(0.0))
    )
    ids = np.sort(np.asarray(first.ids))
    assert set(batch.ids.tolist()) == set(ids[:B].tolist())  # ranks to 7 / 31 < 0.25
    # what comes next is harder than all before: the drift of the model's losses
    second = pool(1)
    later = moment(0.0, 1)._replace(params=jnp.float32(1000.0))
    batch, _, metrics, state = part.choose(state, second, later)
    assert float(metrics["curriculum_difficulty"]) > 0.5
    nearest = np.sort(np.asarray(second.ids))[:B]
    assert set(batch.ids.tolist()) == set(nearest.tolist())


def test_a_wide_pool_is_ranked_too():
    score = lambda pool, moment: pool.ids.astype(jnp.float32)
    part = ordered(config("loss", candidates=6), 500, score)
    wide = jax.tree.map(lambda x: jnp.tile(x, (94, *[1] * (x.ndim - 1)))[:3000], pool())
    shapes = jax.eval_shape(part.choose, part.init(None), wide, moment(1.0))
    assert shapes[0].ids.shape == (500,)


def test_what_is_being_learned_comes_first():
    """Losses fall in the bins of the lower half of the static difficulty alone."""
    part = ordered(config("progress", start=0.3, until=1.0), B)
    state = part.init(None)
    observe, choose = jax.jit(part.observe), jax.jit(part.choose)
    ids = jnp.arange(WINDOWS, dtype=jnp.int32)
    tokens = jnp.zeros((WINDOWS, L), jnp.int32)
    every = Batch(tokens, tokens, ids, tokens)
    low = np.floor(RANKS * BINS) < BINS / 2
    for step in range(40):
        losses = np.where(low, 5.0 - 0.1 * step, 5.0)[:, None].repeat(L, 1)
        given = state, every, jnp.asarray(losses), no_stats(WINDOWS), moment(0.0)
        metrics, state = observe(*given)
        assert metrics == {}
    for seed in range(3):
        batch, _, _, state = choose(state, pool(seed), moment(0.0, seed))
        assert low[np.asarray(batch.ids)].all()


@pytest.mark.parametrize("difficulty", ["rarity", "progress"])
def test_compiled_or_not_it_is_the_same_and_the_state_keeps_its_form(difficulty):
    part = ordered(config(difficulty), B)
    state = part.init(None)
    plain = part.choose(state, pool(), moment(0.1))
    compiled = jax.jit(part.choose)(state, pool(), moment(0.1))
    np.testing.assert_array_equal(plain[0].ids, compiled[0].ids)
    shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    assert shapes(plain[3]) == shapes(state)
    losses = jnp.ones((B, L))
    _, after = part.observe(plain[3], plain[0], losses, no_stats(B), moment(0.1))
    assert shapes(after) == shapes(state)
