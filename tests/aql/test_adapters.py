"""The posterior and the bandit as the streaming selection takes them."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.aql.adapters import ARMS, EVERY, PERIOD, SETTLE, bandit, last_layer
from uets_jax.aql.assets import Knobs, knobs
from uets_jax.config import KnobsConfig
from uets_jax.measure.jaxpr import count
from uets_jax.selection import policy
from uets_jax.types import IGNORED, Stats
from uets_jax.uncertainty import laplace

B, L, WIDTH, OUTPUTS = 3, 16, 5, 7


def by_products(seed: int = 0):
    """(stats, losses, targets) of a batch; the last targets are ignored."""
    rng = np.random.default_rng(seed)
    draw = lambda low, high, *shape: jnp.asarray(
        rng.uniform(low, high, (B, L, *shape)), jnp.float32
    )
    stats = Stats(draw(-1, 1, WIDTH), draw(1, 2), draw(0, 2), draw(0.2, 0.6))
    targets = jnp.asarray(rng.integers(0, OUTPUTS, (B, L)), jnp.int32)
    return stats, draw(0.5, 2), targets.at[:, -1].set(IGNORED)


def test_the_posterior_is_laplaces_on_one_token_in_eight():
    part = last_layer(WIDTH, OUTPUTS)
    plain = laplace.laplace(laplace.LaplaceConfig(WIDTH, OUTPUTS, every=EVERY))
    state, expected = part.init(None), plain.init(None)
    chex.assert_trees_all_equal(state, expected)
    for step in range(5):
        stats, losses, targets = by_products(step)
        thin = stats.features[:, EVERY - 1 :: EVERY]
        found = part.variances(state, stats)
        assert found.shape == (B, L // EVERY)
        inverse = state.whitening.T @ state.whitening
        dense = jnp.einsum("bld,de,ble->bl", thin, inverse, thin) / state.curvature
        np.testing.assert_allclose(found, dense, rtol=1e-4)
        np.testing.assert_array_equal(
            found, laplace.predictive_variance(expected, thin)
        )
        metrics, state = part.update(state, stats, losses, targets)
        given = stats.features, losses, stats.collision, targets
        told, expected = plain.apply(expected, *given)
        chex.assert_trees_all_close((metrics, state), (told, expected), rtol=1e-6)
    assert float(found.mean()) < float(part.variances(part.init(None), stats).mean())


def test_the_ledger_counts_both_arms_of_a_refresh():
    part = last_layer(WIDTH, OUTPUTS)
    stats, losses, targets = by_products()
    jaxpr = jax.make_jaxpr(part.update)(part.init(None), stats, losses, targets)
    counted = count(jaxpr)
    assert list(counted.branches) == [laplace.REFRESH]
    metrics, _ = part.update(part.init(None), stats, losses, targets)
    assert int(metrics[f"taken/{laplace.REFRESH}"]) == 1
    flops = lambda taken: sum(
        c.total for c in counted.total({laplace.REFRESH: taken}, 4).values()
    )
    assert flops(1) > flops(0) > 0
    assert flops(4) - flops(3) == flops(1) - flops(0) >= WIDTH**3 / 3


GIVEN = KnobsConfig(
    temperature=0.8, final_temperature=0.4, natural=-2.0, ratio=1.0, uncertainty=0.1
)
CHANGED = {
    "as it is": {},
    "broader": {"temperature": 1.6, "final_temperature": 0.8},
    "sharper": {"temperature": 0.4, "final_temperature": 0.2},
    "half the candidates": {"ratio": 0.5},
    "stricter": {"natural": -1.0},
    "progress": {"progress": 0.5},
    "uncertain": {"uncertainty": 0.35},
}


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_changes_what_its_name_says_and_nothing_else(name):
    part = bandit()
    arm = jnp.asarray([*ARMS].index(name), jnp.int32)
    state = part.init(None)._replace(arm=arm)
    found = jax.jit(part.knobs)(state, knobs(GIVEN))
    for field in Knobs._fields:
        expected = CHANGED[name].get(field, getattr(GIVEN, field))
        assert float(getattr(found, field)) == pytest.approx(expected), field
    assert all(x.dtype == jnp.float32 and x.shape == () for x in found)


def test_an_arm_is_held_for_a_period_and_the_best_comes_to_be_preferred():
    part, good = bandit(), [*ARMS].index("sharper")
    assert SETTLE < PERIOD

    def turn(state, step):
        value = jnp.where(state.arm == good, 1.0, 0.0) + 0.01 * (step % 7)
        key = jax.random.fold_in(jax.random.key(1), step)
        metrics, state = part.update(state, value, key)
        return state, metrics

    steps = jnp.arange(400 * PERIOD)
    state, metrics = jax.jit(lambda s: jax.lax.scan(turn, s, steps))(part.init(None))
    changes = 1 + np.flatnonzero(np.diff(metrics["select_arm"]))
    assert {int(c) % PERIOD for c in changes} == {0}
    assert int(metrics["select_arm_best"][-1]) == good
    assert float(policy.probabilities(state)[good]) > 2 / len(ARMS)
