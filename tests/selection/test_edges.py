"""Running edges against the quantiles of all that was seen."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from uets_jax.selection import edges


def run(values, bins, least=edges.LEAST_STEP):
    """The state after all rows of `values` [steps, b]."""
    step = lambda state, row: (edges.update(state, row, least), None)
    fold = jax.jit(lambda values: jax.lax.scan(step, edges.init(bins), values)[0])
    return fold(jnp.asarray(values, jnp.float32))


def test_the_edges_of_a_skewed_stream_become_its_quantiles():
    values = np.random.default_rng(0).exponential(size=(600, 32)) * 7 + 100
    state = run(values, 4)
    shares = [(values <= edge).mean() for edge in np.asarray(state.edges)]
    np.testing.assert_allclose(shares, [0.25, 0.5, 0.75], atol=0.03)


def test_the_first_batch_sets_them_to_those_of_a_normal_distribution():
    values = np.random.default_rng(0).normal(size=(1, 4096)) * 3 - 5
    state = run(values, 4)
    np.testing.assert_allclose(
        state.edges, np.quantile(values, [0.25, 0.5, 0.75]), atol=0.15
    )


def test_the_edges_follow_a_stream_that_drifts():
    values = np.random.default_rng(0).normal(size=(1500, 32))
    values[500:] += 1.5
    state = run(values, 2)
    assert abs(float(state.edges[0]) - 1.5) < 0.2


def test_a_constant_stream_keeps_finite_ascending_edges():
    state = run(np.full((20, 8), 3.0), 4)
    chex.assert_trees_all_equal(state.edges, jnp.full(3, 3.0))


def test_one_bin_has_no_edge():
    assert run(np.ones((2, 4)), 1).edges.shape == (0,)
