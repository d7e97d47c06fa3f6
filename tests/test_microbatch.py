import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.build import build, initial_state
from uets_jax.config import replace_from_dict
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
    (loss, aux, _), _ = two(state.params, batch, weights)
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
    (loss, _, _), grads = one(state.params, empty, None)
    assert loss == 0
    chex.assert_tree_all_finite(grads)


@pytest.fixture(scope="module")
def mixture(tiny):
    """(program, params) of a model with experts."""
    fields = {"experts": 4, "capacity": 0.5, "balance": 0.3}
    config = replace_from_dict(tiny, {"model": fields})
    program = build(config)
    params = jax.jit(lambda: initial_state(config, program))().params
    rng = np.random.default_rng(0)
    shift = lambda x: x + jnp.asarray(0.1 * rng.normal(size=x.shape), x.dtype)
    return program, jax.tree.map(shift, params)


def test_a_penalty_is_differentiated_and_not_reported(mixture, batch):
    program, params = mixture

    def total(p):
        losses, stats = program.forward(p, batch)
        return losses.sum() / (8 * 31) + stats.penalty, losses.sum() / (8 * 31)

    (_, expected), slope = jax.jit(jax.value_and_grad(total, has_aux=True))(params)
    (loss, _, _), grads = jax.jit(value_and_grad(program.forward))(params, batch, None)
    assert loss == pytest.approx(float(expected), rel=1e-6)
    chex.assert_trees_all_close(grads, slope, rtol=1e-4, atol=1e-6)


def test_groups_of_rows_are_routed_alone_and_their_penalties_averaged(mixture, batch):
    program, params = mixture
    both = jax.jit(value_and_grad(program.forward, 2, by_products=True))
    (loss, (losses, stats), routed), grads = both(params, batch, None)
    one = jax.jit(value_and_grad(program.forward))
    halves = [jax.tree.map(lambda x, i=i: x[i::2], batch) for i in (0, 1)]
    alone = [one(params, half, None) for half in halves]
    mean = lambda *trees: jax.tree.map(lambda a, b: (a + b) / 2, *trees)
    (expected, _, told), slope = mean(*alone)
    assert loss == pytest.approx(float(expected), rel=1e-5)
    chex.assert_trees_all_close(routed, told, rtol=1e-5)
    chex.assert_trees_all_close(grads, slope, rtol=1e-4, atol=1e-6)
    assert losses.shape == stats.entropy.shape == (8, 32)
    assert stats.penalty is None


def test_a_dense_model_has_nothing_routed(state, program, batch):
    one = value_and_grad(program.forward)
    (_, _, routed), _ = jax.eval_shape(one, state.params, batch, None)
    assert routed == {}
