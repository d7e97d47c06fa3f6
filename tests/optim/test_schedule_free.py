import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from uets_jax.build import build, hypers
from uets_jax.config import OptimConfig
from uets_jax.errors import UserError
from uets_jax.optim.schedule_free import averaged, schedule_free
from uets_jax.step import evaluated, init_state, train_step
from uets_jax.validation import validate

B1 = 0.8
PARAMS = {"a": jnp.array([1.0, -2.0, 3.0]), "b": {"w": jnp.ones((2, 2))}, "c": None}


def gradient(params, seed):
    """Of a quadratic with noise."""
    rng = np.random.default_rng(seed)
    noisy = lambda p: p + jnp.asarray(rng.normal(size=p.shape), p.dtype)
    return jax.tree.map(noisy, params)


def chained(rate=0.1):
    """Plain gradient steps whose rate is an extra argument."""

    def scale(updates, state, params=None, *, learning_rate=rate, **extra):
        return jax.tree.map(lambda g: -learning_rate * g, updates), state

    sgd = optax.GradientTransformationExtraArgs(lambda p: optax.EmptyState(), scale)
    return optax.chain(sgd, schedule_free(rate, B1))


RATES = [0.02, 0.05, 0.1, 0.1, 0.1, 0.05, 0.0]


def test_points_are_those_of_the_paper_written_out():
    """Three sequences in NumPy, float64; rates warm up, fall, and are 0 at last."""
    tx, params = chained(), PARAMS
    state, read = tx.init(params), averaged(B1)
    x = z = y = np.asarray(PARAMS["a"], np.float64)
    total = largest = 0.0
    for seed, rate in enumerate(RATES):
        g = gradient(params, seed)
        updates, state = jax.jit(tx.update)(g, state, params, learning_rate=rate)
        params = optax.apply_updates(params, updates)
        z = z - rate * np.asarray(g["a"], np.float64)
        largest = max(largest, rate)
        total += largest**2
        x = x + largest**2 / total * (z - x)
        y = B1 * x + (1 - B1) * z
        np.testing.assert_allclose(params["a"], y, rtol=1e-5)
        np.testing.assert_allclose(read(params, state)["a"], x, rtol=1e-5)
    assert read(params, state)["c"] is None


def test_average_and_points_equal_optax():
    ours, params = chained(), PARAMS
    theirs = contrib.schedule_free(optax.sgd(0.1), 0.1, B1)
    state, other, own = ours.init(params), theirs.init(params), params
    for seed in range(6):
        updates, state = ours.update(gradient(own, seed), state, own)
        own = optax.apply_updates(own, updates)
        updates, other = theirs.update(gradient(params, seed), other, params)
        params = optax.apply_updates(params, updates)
    chex.assert_trees_all_close(own, params, rtol=1e-5)
    x = contrib.schedule_free_eval_params(other, params)
    chex.assert_trees_all_close(averaged(B1)(own, state), x, rtol=1e-5)


def test_before_the_first_step_with_a_rate_nothing_is_averaged():
    tx = chained(0.0)
    updates, state = tx.update(gradient(PARAMS, 0), tx.init(PARAMS), PARAMS)
    chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, PARAMS))
    chex.assert_trees_all_equal(averaged(B1)(PARAMS, state), PARAMS)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: optax.masked(tx, lambda p: jax.tree.map(lambda _: True, p)),
        lambda tx: optax.MultiSteps(tx, 1).gradient_transformation(),
        lambda tx: optax.chain(optax.scale(1.0), tx),
    ],
)
def test_the_average_is_found_wherever_the_state_is(wrap):
    tx, plain = wrap(chained()), chained()
    g = gradient(PARAMS, 0)
    _, state = tx.update(g, tx.init(PARAMS), PARAMS)
    _, expected = plain.update(g, plain.init(PARAMS), PARAMS)
    read = averaged(B1)
    chex.assert_trees_all_close(read(PARAMS, state), read(PARAMS, expected))


def test_bfloat16_parameters_have_a_float32_average():
    low = {"a": jnp.ones(3, jnp.bfloat16)}
    tx = chained()
    updates, state = tx.update(gradient(low, 0), tx.init(low), low)
    assert updates["a"].dtype == jnp.bfloat16
    assert state[1].ahead["a"].dtype == jnp.float32
    assert averaged(B1)(low, state)["a"].dtype == jnp.bfloat16


def config_of(tiny, **changes):
    optim = OptimConfig(name="schedule_free", schedule="constant", warmup=2, **changes)
    return dataclasses.replace(tiny, optim=optim)


def test_a_program_evaluates_the_average(tiny, batch):
    config = config_of(tiny, learning_rate=0.01)
    program = build(config)
    state = jax.jit(lambda: init_state(program, hypers(config), 0))()
    step = jax.jit(lambda s: train_step(program, s, batch)[0])
    chex.assert_trees_all_equal(evaluated(program, state), state.params)
    for _ in range(3):
        state = step(state)
    expected = averaged(config.optim.b1)(state.params, state.opt)
    chex.assert_trees_all_close(evaluated(program, state), expected, atol=1e-7)
    assert not np.allclose(evaluated(program, state)["head"]["w"], 0)
    differs = lambda a, b: bool((a != b).any())
    found = jax.tree.map(differs, evaluated(program, state), state.params)
    assert any(jax.tree.leaves(found))


def test_other_rules_and_own_ones_evaluate_what_they_train(tiny):
    own = {"tx": optax.sgd(0.1)}
    assert build(tiny).averaged is None
    assert build(config_of(tiny), own).averaged is None
    read = lambda params, opt: params
    assert build(tiny, {"averaged": read}).averaged is read


def test_it_needs_a_share_of_the_average(tiny):
    with pytest.raises(UserError, match=r"optim\.b1: must be above 0"):
        validate(config_of(tiny, b1=0.0))
