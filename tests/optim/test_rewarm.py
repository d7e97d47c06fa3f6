import chex
import jax
import jax.numpy as jnp

from uets_jax.measure.jaxpr import count
from uets_jax.optim.rewarm import OLD, rewarm, warm

PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.ones(())}


def fresh_column(born):
    part = rewarm(4)
    state = part.init(PARAMS)
    steps = (jnp.full(2, OLD), jnp.array([OLD, OLD, born]))
    return part, state._replace(born={**state.born, "w": steps})


def scaled(step):
    part, state = fresh_column(10)
    return part.apply(state, PARAMS, jnp.asarray(step, jnp.int32))[0]


def test_without_growth_updates_pass_unchanged():
    part = rewarm(4)
    updates, _ = part.apply(part.init(PARAMS), PARAMS, jnp.zeros((), jnp.int32))
    chex.assert_trees_all_equal(updates, PARAMS)


def test_fresh_entries_rise_in_a_line_and_old_ones_never_change():
    last = [float(scaled(step)["w"][0, 2]) for step in range(10, 15)]
    assert last == [0.25, 0.5, 0.75, 1.0, 1.0]
    for step in (10, 12):
        chex.assert_trees_all_equal(scaled(step)["w"][:, :2], jnp.ones((2, 2)))
        assert float(scaled(step)["b"]) == 1.0


def test_an_entry_is_as_young_as_its_youngest_axis():
    part, state = fresh_column(10)
    rows = jnp.array([OLD, 12])
    state = state._replace(born={**state.born, "w": (rows, state.born["w"][1])})
    found = part.apply(state, PARAMS, jnp.asarray(12))[0]["w"]
    chex.assert_trees_all_equal(found, jnp.array([[1, 1, 0.75], [0.25, 0.25, 0.25]]))
    chex.assert_trees_all_equal(
        part.apply(warm(state), PARAMS, jnp.asarray(12))[0], PARAMS
    )


def test_the_state_stays_as_it_is_and_jit_agrees():
    part, state = fresh_column(0)
    updates, after = jax.jit(part.apply)(state, PARAMS, jnp.ones((), jnp.int32))
    chex.assert_trees_all_equal(after, state)
    chex.assert_trees_all_close(
        updates, part.apply(state, PARAMS, jnp.ones((), jnp.int32))[0]
    )


def test_a_bfloat16_update_stays_one():
    part, state = fresh_column(0)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    updates, _ = part.apply(state, half, jnp.zeros((), jnp.int32))
    assert updates["w"].dtype == jnp.bfloat16


def test_what_is_not_trained_is_not_looked_at():
    part = rewarm(4, lambda params: {"w": False, "b": True})
    state = part.init(PARAMS)
    young = {"w": (jnp.array([10, 10]), jnp.array([OLD] * 3)), "b": ()}
    updates, _ = part.apply(state._replace(born=young), PARAMS, jnp.asarray(10))
    chex.assert_trees_all_equal(updates, PARAMS)
    costs = [
        count(
            jax.make_jaxpr(rewarm(4, t).apply)(state, PARAMS, jnp.asarray(10))
        ).total()
        for t in (None, lambda params: {"w": False, "b": True})
    ]
    every, one = (sum(c.total for c in cost.values()) for cost in costs)
    assert one < every / 4
