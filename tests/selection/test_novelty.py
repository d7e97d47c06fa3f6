"""Overlap of windows with what was trained on: oracle, cuts, edits, bounded memory."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.measure.jaxpr import count
from uets_jax.selection.novelty import (
    FALSE_POSITIVES,
    NoveltyConfig,
    init,
    novelty,
    overlap,
    remember,
)

CONFIG = NoveltyConfig(order=4, slots=1 << 16, stride=2)
look = jax.jit(overlap, static_argnames="config")
learn = jax.jit(remember, static_argnames="config")
TEXT = np.random.default_rng(0).integers(0, 900, 4096)


def windows(starts, length=64, text=TEXT):
    return jnp.asarray(np.stack([text[s : s + length] for s in starts]), jnp.int32)


def fresh(rows, length=64, seed=1):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.integers(0, 900, (rows, length)), jnp.int32)


def exact(seen, rows, masks, config):
    """An oracle: sets of tuples, unbounded."""
    n = config.order
    grams = lambda row, mask, step: [
        tuple(row[i : i + n])
        for i in range(0, len(row) - n + 1, step)
        if all(mask[i : i + n])
    ]
    shares = []
    for row, mask in zip(rows.tolist(), masks.tolist(), strict=True):
        asked = grams(row, mask, config.stride)
        shares.append(np.mean([g in seen for g in asked]) if asked else 0.0)
    for row, mask in zip(rows.tolist(), masks.tolist(), strict=True):
        seen.update(grams(row, mask, 1))
    return shares


def test_shares_are_those_of_sets_of_ngrams_with_masks():
    rng, seen, part = np.random.default_rng(2), set(), novelty(CONFIG)
    state, step = part.init(None), jax.jit(part.apply)
    for _ in range(6):
        rows = rng.integers(0, 4, (5, 16))  # 256 n-grams: many come back
        masks = rng.random((5, 16)) < 0.9
        shares, state = step(state, jnp.asarray(rows), jnp.asarray(masks))
        expected = exact(seen, rows, masks, CONFIG)
        np.testing.assert_allclose(shares, expected, atol=0.02)
    assert np.mean(expected) > 0.3


def test_a_window_is_found_wherever_it_is_cut():
    state = learn(init(CONFIG), windows([100, 200]), config=CONFIG)
    found = look(state, windows([100, 200, 101, 107, 213, 132]), config=CONFIG)
    np.testing.assert_allclose(found, [1, 1, 1, 0.9, 0.8, 0.5], atol=0.06)
    assert float(look(state, fresh(6), config=CONFIG).max()) < 0.05


@pytest.mark.parametrize("rate", [0.02, 0.05])
def test_edits_hide_the_ngrams_that_they_touch(rate):
    rng = np.random.default_rng(3)
    state = learn(init(CONFIG), windows(range(0, 4000, 64)), config=CONFIG)
    edited = np.where(rng.random(4096) < rate, rng.integers(0, 900, 4096), TEXT)
    shares = look(state, windows(range(0, 4000, 64), text=edited), config=CONFIG)
    assert float(shares.mean()) == pytest.approx((1 - rate) ** 4, abs=0.04)


def test_memory_is_bounded_and_fades_as_the_formula_says():
    config = NoveltyConfig(order=4, slots=1 << 12, stride=1)
    first = fresh(64)
    state = learn(init(config), first, config=config)
    state = learn(state, fresh(64, seed=10), config=config)
    written = 64 * 61
    left = math.exp(-written / config.slots) * (1 - math.exp(-64 * 61 / 4096))
    expected = left * 4096 / (64 * 61)  # what survived its own call, then another
    found = float(look(state, first, config=config).mean())
    assert found == pytest.approx(expected, abs=0.03)
    for seed in range(20, 40):
        state = learn(state, fresh(64, seed=seed), config=config)
    many = [look(state, fresh(64, seed=seed), config=config) for seed in range(90, 98)]
    unseen = float(jnp.mean(jnp.stack(many)))
    assert unseen == pytest.approx(FALSE_POSITIVES, abs=0.002)


def test_rows_without_text_are_neither_remembered_nor_found():
    rows, nothing = windows([0, 64]), jnp.zeros((2, 64), bool)
    state = learn(init(CONFIG), rows, nothing, CONFIG)
    chex.assert_trees_all_equal(state, init(CONFIG))
    state = learn(state, rows, ~nothing, CONFIG)
    assert look(state, rows, ~nothing, CONFIG).tolist() == [1, 1]
    assert look(state, rows, nothing, CONFIG).tolist() == [0, 0]


def test_the_order_of_rows_in_a_call_changes_nothing():
    config = NoveltyConfig(order=4, slots=64, stride=1)  # nearly every slot clashes
    rows = fresh(8)
    state = learn(init(config), rows, config=config)
    turned = learn(init(config), rows[::-1], config=config)
    chex.assert_trees_all_equal(state, turned)


def test_a_donated_table_is_written_in_place():
    config = NoveltyConfig()
    part, masks = novelty(config), jnp.ones((8, 64), bool)

    def choose(state, pool):
        shares = overlap(state, pool, config=config)
        chosen = pool[jax.lax.top_k(-shares, 8)[1]]
        return remember(state, chosen, config=config)

    for step, given in ((part.apply, (fresh(8), masks)), (choose, (fresh(32),))):
        compiled = jax.jit(step, donate_argnums=0).lower(init(config), *given).compile()
        held = compiled.memory_analysis()
        assert held is not None
        assert held.alias_size_in_bytes >= config.slots
        assert held.temp_size_in_bytes < config.slots / 8


def test_candidates_cost_a_stride_th_of_the_hashes():
    rows = jnp.zeros((16, 128), jnp.int32)

    def per_token(stride):
        config = NoveltyConfig(stride=stride)
        traced = jax.make_jaxpr(lambda s, t: overlap(s, t, None, config))
        costs = count(traced(init(config), rows)).total()
        return sum(cost.total for cost in costs.values()) / rows.size

    assert 0.2 < per_token(4) / per_token(1) < 0.3
    assert per_token(4) < 30


@pytest.mark.parametrize(
    "bad", [{"order": 0}, {"stride": 0}, {"slots": 1000}, {"slots": 1}]
)
def test_numbers_out_of_range_are_named(bad):
    with pytest.raises(UserError, match=f"novelty.{next(iter(bad))}"):
        NoveltyConfig(**bad)


def test_rows_shorter_than_an_ngram_are_refused():
    with pytest.raises(UserError, match="rows of 3"):
        overlap(init(CONFIG), jnp.zeros((1, 3), jnp.int32), config=CONFIG)
