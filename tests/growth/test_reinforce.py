import functools

import jax
import jax.numpy as jnp
import numpy as np

from uets_jax.growth.environment import Rules, timed
from uets_jax.growth.law import Law
from uets_jax.growth.reinforce import (
    Ranges,
    mean_value,
    padded,
    quality,
    reinforce,
    settings,
)
from uets_jax.growth.score import START

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
RANGES = Ranges(((0, 1, 2), (0, 2)), (1e5, 4e5), (0.05, 10.0))
RULES = Rules(points=4)


def test_ladders_get_one_length():
    assert padded([(0, 1, 2), (0, 2)]) == [[0, 1, 2], [0, 2, 2]]


def test_settings_lie_in_their_ranges(key):
    found = settings(key, 200, RANGES)
    assert found.ladder.shape == (200, 3)
    assert {*map(tuple, found.ladder.tolist())} == {(0, 1, 2), (0, 2, 2)}
    for values, (low, high) in [
        (found.tokens, RANGES.tokens),
        (found.price, RANGES.price),
    ]:
        assert low <= values.min() < 1.2 * low
        assert high / 1.2 < values.max() <= high * 1.001
    middle = jnp.median(jnp.log(found.price))
    assert abs(middle - np.log(0.05 * 10) / 2) < 0.6


def test_the_policy_gradient_improves_the_policy(key):
    start = jnp.array(START)
    ask = jax.jit(lambda w, key: quality(LAW, w, key, 256, RANGES, RULES))
    learn = functools.partial(reinforce, updates=60, number=32, episodes=4, rules=RULES)
    found = jax.jit(lambda key: learn(LAW, start, key, RANGES))(key)
    assert found.history.shape == (60,)
    before = ask(start, jax.random.key(1))
    assert ask(found.weights, jax.random.key(1)) > before + 0.02


def test_with_a_high_price_refusing_is_worth_more():
    dear = RANGES._replace(price=(50.0, 60.0))

    @jax.jit
    def value(shares):
        key = jax.random.key(0)
        return mean_value(LAW, timed(shares), key, 64, dear, RULES)

    assert value(jnp.array([2.0, 2.0])) > value(jnp.array([0.1, 0.1]))
