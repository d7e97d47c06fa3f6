import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.growth.environment import (
    RULES,
    Rules,
    Setting,
    episode,
    greedy,
    sampled,
    timed,
)
from uets_jax.growth.law import Law, static
from uets_jax.growth.score import FEATURES, START

LAW = Law(
    floor=jnp.array([3.2, 3.0, 2.8]),
    height=jnp.array([1.1, 1.0, 1.0]),
    power=jnp.array([0.5, 0.45, 0.4]),
    drop=jnp.array([0.2, 0.3, 0.4]),
    cost=jnp.array([1e6, 1.5e6, 2.5e6]),
    jump=jnp.float32(0.0),
    lag=jnp.float32(2e4),
    noise=jnp.float32(0.1),
    start=jnp.float32(7.0),
    unit=jnp.float32(2e5),
    batch=jnp.float32(1024),
)
TOKENS = 2e5
NEVER = (2.0, 2.0)


def root():
    """The same key again: a key that is used twice is an error."""
    return jax.random.key(0)


def setting(price=0.2, ladder=(0, 1, 2)):
    return Setting(jnp.array(ladder), jnp.float32(TOKENS), jnp.float32(price))


@functools.partial(jax.jit, static_argnames=("rules",))
def follow(key, shares, one, law=LAW, rules=RULES):
    """An episode of a fixed schedule."""
    return episode(law, timed(shares), key, one, rules)


def at(*shares):
    return jnp.array(shares, jnp.float32)


def test_without_growth_a_run_is_the_law(key):
    found = follow(key, at(*NEVER), setting())
    np.testing.assert_allclose(found.loss, static(LAW, 0, TOKENS) - 0.2, rtol=1e-5)
    np.testing.assert_allclose(found.flops, TOKENS * 1e6, rtol=1e-5)
    assert not found.taken.any()


def test_growth_at_once_is_the_big_law_at_the_big_cost_where_all_mixes(key):
    quick = LAW._replace(lag=jnp.float32(1.0))
    rules = Rules(earliest=0.0)
    found = follow(key, at(0, 0), setting(), quick, rules)
    np.testing.assert_allclose(found.loss, static(LAW, 2, TOKENS) - 0.4, rtol=1e-5)
    spent = TOKENS / 20 * (1.5e6 + 19 * 2.5e6)  # a stage at each decision
    np.testing.assert_allclose(found.flops, spent, rtol=1e-5)
    assert found.taken.tolist() == [True, True] + [False] * 18


def test_late_growth_has_mixed_only_partly(key):
    found = follow(key, at(0.5, 2.0), setting(ladder=(0, 2, 2)))
    apart = static(LAW, 0, TOKENS / 2) - static(LAW, 2, TOKENS / 2)
    expected = static(LAW, 2, TOKENS) + apart * np.exp(-TOKENS / 2 / 2e4) - 0.4
    np.testing.assert_allclose(found.loss, expected, rtol=1e-5)


@pytest.mark.parametrize("shares", [NEVER, (0.1, 0.1), (0.3, 0.55)])
def test_the_reward_telescopes(shares, key):
    found = follow(key, at(*shares), setting(price=0.7))
    expected = 7.0 - found.loss - 0.7 * found.flops / (TOKENS * 2.5e6)
    np.testing.assert_allclose(found.reward, expected, rtol=1e-5)
    np.testing.assert_allclose(found.rewards.sum(), expected, rtol=1e-4)


def test_decisions_are_asked_between_the_earliest_and_the_decay(key):
    found = follow(key, at(*NEVER), setting())
    assert np.flatnonzero(found.asked).tolist() == [*range(2, 12)]
    short = follow(root(), at(0.2, 2.0), setting(ladder=(0, 1, 1)))
    assert np.flatnonzero(short.asked).tolist() == [2, 3, 4]
    assert np.flatnonzero(short.taken).tolist() == [4]


def test_the_slope_is_seen_through_noise(key):
    """At the last decision: dL / d ln C = -beta B x^-beta at equal FLOPs per token."""
    place = [FEATURES.index(name) for name in ("fall", "uncertainty")]
    quiet = LAW._replace(noise=jnp.float32(0.01))
    fall, _ = follow(key, at(*NEVER), setting(), quiet).features[-1, jnp.array(place)]
    x = 0.95
    exact = 0.5 * 1.1 * x**-0.5 * (1 - 0.5 / 2) ** -2  # the bias that `slope` states
    assert fall == pytest.approx(exact, rel=0.1)
    loud = LAW._replace(noise=jnp.float32(1.0))
    noisy = follow(root(), at(*NEVER), setting(), loud).features
    clear = follow(root(), at(*NEVER), setting(), quiet).features
    assert noisy[5:, place[1]].mean() > 2 * clear[5:, place[1]].mean()
    assert jnp.isfinite(noisy).all()


def test_with_a_huge_price_refusing_is_best_and_what_the_score_does(key):
    dear = setting(price=1e3)
    never = follow(key, at(*NEVER), dear)
    for shares in [(0.1, 0.1), (0.3, 2.0), (0.55, 0.55)]:
        assert follow(root(), at(*shares), dear).reward < never.reward
    eager = jnp.array([5.0, *START[1:]])
    act = jax.jit(lambda key, one: episode(LAW, greedy(eager), key, one))
    assert not act(root(), dear).taken.any()
    assert act(root(), setting(price=0.0)).taken.sum() == 2


def test_a_sampled_policy_takes_what_is_likely(key):
    sure = jnp.zeros(len(FEATURES)).at[0].set(30.0)
    run = jax.vmap(lambda key: episode(LAW, sampled(sure), key, setting()))
    assert run(jax.random.split(key, 4)).taken.sum(1).tolist() == [2] * 4


def test_the_same_key_is_the_same_episode(key):
    one = follow(key, at(0.3, 0.5), setting())
    two = follow(root(), at(0.3, 0.5), setting())
    jax.tree.map(np.testing.assert_array_equal, one, two)
