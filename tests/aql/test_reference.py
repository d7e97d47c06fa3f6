"""What the loss of a candidate is held against."""

import jax
import jax.numpy as jnp
import numpy as np

from uets_jax.aql.reference import Snapshot, reference_losses
from uets_jax.measure.jaxpr import count

TABLE = np.arange(40, dtype=np.float32)


def test_a_table_is_looked_up_by_the_number_of_the_window(batch):
    pool = batch._replace(ids=jnp.asarray([3, 3, 0, 39, 7, 1, 2, 9], jnp.int32))
    found = jax.jit(reference_losses)(jnp.asarray(TABLE), pool)
    np.testing.assert_array_equal(found, TABLE[np.asarray(pool.ids)])


def test_a_snapshot_reads_each_row_as_the_model_did(program, state, batch):
    snapshot = Snapshot(state.params, program.forward)
    found = jax.jit(reference_losses)(snapshot, batch)
    losses = np.asarray(jax.jit(program.forward)(state.params, batch)[0])
    np.testing.assert_allclose(found, losses[:, :-1].mean(1), rtol=1e-6)


def test_a_pass_of_the_snapshot_is_charged_to_reference(program, state, batch):
    cost = lambda given: count(jax.jit(reference_losses).trace(given, batch).jaxpr)
    spent = cost(Snapshot(state.params, program.forward)).total()
    forward = count(jax.jit(program.forward).trace(state.params, batch).jaxpr).total()
    matmul = sum(each.matmul for each in forward.values())
    assert {k for k, v in spent.items() if v.matmul} == {"reference"}
    assert 0 < spent["reference"].matmul == matmul
    assert "reference" not in cost(jnp.asarray(TABLE)).total()


def test_its_function_is_static_and_its_parameters_are_leaves(program, state):
    one = Snapshot(state.params, program.forward)
    assert jax.tree.leaves(one) == jax.tree.leaves(state.params)
    same = Snapshot(jax.tree.map(jnp.ones_like, state.params), program.forward)
    other = Snapshot(state.params, lambda params, rows: program.forward(params, rows))
    assert jax.tree.structure(one) == jax.tree.structure(same)
    assert jax.tree.structure(one) != jax.tree.structure(other)
