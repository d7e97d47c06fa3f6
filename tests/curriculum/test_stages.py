"""Stages partition the difficulties; a band admits first, then the nearest."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.curriculum.stages import (
    STAGES,
    THRESHOLDS,
    admit,
    band,
    stage_at,
    stage_metrics,
    stages_of,
)

EDGES = jnp.array(THRESHOLDS)
RANKS = jnp.array([0.0, 0.1, 0.25, 0.4, 0.6, 0.75, 0.9, 1.0])


def test_every_difficulty_belongs_to_one_stage():
    np.testing.assert_array_equal(stages_of(RANKS, EDGES), [0, 0, 1, 1, 2, 3, 3, 3])


def test_the_bands_of_the_stages_meet_and_cover_all():
    bands = [band(jnp.int32(i), EDGES) for i in range(len(STAGES))]
    assert bands[0][0] == 0
    assert bands[-1][1] == 1
    for (_, high), (low, _) in itertools.pairwise(bands):
        assert high == low


@pytest.mark.parametrize(("overlap", "low"), [(0.0, 0.5), (0.5, 0.25), (1.0, 0.0)])
def test_overlap_keeps_easier_text(overlap, low):
    found = band(jnp.int32(2), EDGES, overlap)
    np.testing.assert_allclose(found, (low, 0.75))


def test_stages_begin_at_their_times():
    starts = jnp.array([0.1, 0.4, 0.8])
    found = [int(stage_at(t, starts)) for t in (0.0, 0.1, 0.39, 0.5, 0.8, 1.0)]
    assert found == [0, 1, 1, 2, 3, 3]


def test_inside_the_band_the_scores_decide():
    scores = jnp.array([5.0, 1, 2, 3, 4, 9, 9, 9])
    key = scores + admit(RANKS, 0.1, 0.6)
    np.testing.assert_array_equal(jax.lax.top_k(key, 4)[1], [4, 3, 2, 1])


@pytest.mark.parametrize("spread", [0.0, 100.0])
def test_too_few_inside_are_filled_with_the_nearest(spread):
    scores = spread * jnp.array([1.0, -1, 1, 1, -1, 1, 1, 1])
    chosen = jax.lax.top_k(scores + admit(RANKS, 0.38, 0.45), 4)[1]
    np.testing.assert_array_equal(np.sort(chosen), [1, 2, 3, 4])


def test_the_keys_of_admission_are_zero_or_far_below():
    found = np.asarray(jax.jit(admit)(RANKS, 0.25, 0.75))
    np.testing.assert_array_equal(found == 0, [0, 0, 1, 1, 1, 1, 0, 0])
    assert found[found != 0].max() <= -1e6
    np.testing.assert_allclose(found[0] - found[1], -1e5, rtol=1e-5)


def test_metrics_show_the_stage_its_thresholds_and_the_shares():
    low, high = band(jnp.int32(1), EDGES)
    seen = jax.jit(stage_metrics)(RANKS, jnp.int32(1), EDGES, low, high)
    shares = [float(seen[f"share_{name}"]) for name in STAGES]
    assert shares == [0.25, 0.25, 0.125, 0.375]
    assert (seen["stage"], seen["stage_low"], seen["stage_high"]) == (1, 0.25, 0.5)
    assert seen["threshold_hard"] == 0.5
    assert seen["difficulty"] == pytest.approx(float(RANKS.mean()))
    assert all(value.shape == () for value in seen.values())


def test_thresholds_are_traced():
    compiled = jax.jit(chex.assert_max_traces(stages_of, 1))
    for edges in ([0.2, 0.4, 0.8], [0.5, 0.6, 0.7]):
        expected = np.searchsorted(edges, np.asarray(RANKS), side="right")
        np.testing.assert_array_equal(compiled(RANKS, jnp.array(edges)), expected)
