import functools

import jax
import jax.numpy as jnp
import numpy as np

from tests.growth.test_environment import LAW
from uets_jax.growth.environment import Rules, timed
from uets_jax.growth.reinforce import (
    Ranges,
    mean_value,
    padded,
    quality,
    reinforce,
    settings,
)
from uets_jax.growth.score import START

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


def test_refusing_and_growing_at_once_have_a_value(key):
    value = lambda shares: mean_value(
        LAW, timed(jnp.array(shares)), jax.random.key(0), 64, RANGES, RULES
    )
    dear = RANGES._replace(price=(50.0, 60.0))
    assert jnp.isfinite(value([2.0, 2.0]))
    worse = mean_value(LAW, timed(jnp.array([0.1, 0.1])), key, 64, dear, RULES)
    never = mean_value(
        LAW, timed(jnp.array([2.0, 2.0])), jax.random.key(0), 64, dear, RULES
    )
    assert never > worse
