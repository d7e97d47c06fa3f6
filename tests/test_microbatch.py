import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.microbatch import value_and_grad, weighted_sum


@pytest.mark.parametrize("parts", [2, 8])
@pytest.mark.parametrize("weighted", [False, True])
def test_any_number_of_parts_gives_the_same_gradient(
    parts, weighted, state, program, batch
):
    weights = jnp.linspace(0.5, 1.5, 8) if weighted else None
    params = jax.tree.map(lambda x: x + 0.01, state.params)
    build = lambda n: jax.jit(value_and_grad(program.forward, n, by_products=True))
    one, many = build(1), build(parts)
    whole, cut = one(params, batch, weights), many(params, batch, weights)
    chex.assert_trees_all_close(whole, cut, rtol=2e-5, atol=2e-6)


def test_the_loss_is_the_weighted_mean_over_all_targets(state, program, batch):
    weights = jnp.arange(8.0)
    two = jax.jit(value_and_grad(program.forward, 2))
    (loss, aux), _ = two(state.params, batch, weights)
    losses, _ = jax.jit(program.forward)(state.params, batch)
    targets = (np.asarray(batch.targets) != -1).sum()
    expected = (np.asarray(losses).sum(1) * np.arange(8.0)).sum() / targets
    assert loss == pytest.approx(expected, rel=1e-5)
    assert aux is None


def test_no_weights_weigh_all_rows_by_one():
    losses = jnp.arange(6.0).reshape(2, 3)
    assert weighted_sum(losses, None) == weighted_sum(losses, jnp.ones(2)) == 15


def test_a_batch_without_targets_has_loss_zero(state, program, batch):
    empty = batch._replace(targets=jnp.full_like(batch.targets, -1))
    one = jax.jit(value_and_grad(program.forward))
    (loss, _), grads = one(state.params, empty, None)
    assert loss == 0
    chex.assert_tree_all_finite(grads)
