"""The costly arms: the rows that are best by a forward pass over all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.aql.assets import Assets, knobs
from uets_jax.aql.forwarded import by_dropout, by_entropy, by_excess, by_loss, forwarded
from uets_jax.config import KnobsConfig
from uets_jax.types import IGNORED, Batch, Moment, Stats

C, L = 12, 6
rng = np.random.default_rng(0)
TOKENS = rng.integers(0, 9, (C, L)).astype(np.int32)
TARGETS = TOKENS.copy()
TARGETS[::3, 4:] = IGNORED
IDS = rng.permutation(40)[:C].astype(np.int32)
POOL = Batch(*map(jnp.asarray, (TOKENS, TARGETS, IDS, np.zeros_like(TOKENS))))
LOSSES = rng.uniform(1, 3, (C, L)).astype(np.float32)
ENTROPY = rng.uniform(0, 2, (C, L)).astype(np.float32)


def forward(params, batch):
    """Losses [C, L] whatever the parameters; 0 where there is no target."""
    each = jnp.asarray(ENTROPY)
    losses = jnp.where(batch.targets == IGNORED, 0.0, params * LOSSES)
    return losses, Stats(each[..., None], each, each, each)


def moment(reference=None) -> Moment:
    assets = Assets(knobs(KnobsConfig()), reference=reference)
    return Moment(jnp.float32(2.0), assets, jnp.float32(0.5), jax.random.key(0))


def means(values: np.ndarray) -> np.ndarray:
    counted = TARGETS != IGNORED
    return (values * counted).sum(1) / counted.sum(1)


REFERENCE = rng.uniform(0, 6, 40).astype(np.float32)
EXPECTED = {
    "loss": means(2 * LOSSES),
    "rho": means(2 * LOSSES) - REFERENCE[IDS],
    "entropy": means(ENTROPY),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_best_rows_are_trained_on(name):
    ways = {"loss": by_loss, "rho": by_excess, "entropy": by_entropy}
    part, now = forwarded(ways[name](forward), 4), moment(jnp.asarray(REFERENCE))
    batch, weights, metrics, state = jax.jit(part.choose)(part.init(None), POOL, now)
    best = np.argsort(-EXPECTED[name])[:4]
    np.testing.assert_array_equal(batch.ids, IDS[best])
    for field, of_pool in zip(batch, POOL, strict=True):
        np.testing.assert_array_equal(field, np.asarray(of_pool)[best])
    assert weights is None
    assert state == ()
    mean = EXPECTED[name][best].mean()
    assert float(metrics["select_score"]) == pytest.approx(mean, rel=1e-5)


def test_the_three_ways_choose_differently():
    orders = [tuple(np.argsort(-scores)[:4]) for scores in EXPECTED.values()]
    assert len(set(orders)) == 3


def test_by_dropout_is_the_mean_information_of_a_row():
    seen = []

    def information(params, pool, key):
        seen.append((params, pool.ids.shape, jax.random.key_data(key)))
        return jnp.asarray(ENTROPY)

    now = moment()
    found = by_dropout(information)(POOL, now)
    np.testing.assert_allclose(found, EXPECTED["entropy"], rtol=1e-6)
    [(params, shape, key)] = seen
    assert (float(params), shape) == (2.0, (C,))
    np.testing.assert_array_equal(key, jax.random.key_data(now.key))


def test_nothing_is_learned_and_nothing_kept():
    part = forwarded(by_loss(forward), 4)
    assert part.init(None) == ()
    assert part.observe((), POOL, None, None, moment()) == ({}, ())
