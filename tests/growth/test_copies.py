import jax
import jax.numpy as jnp
import optax
import pytest
from optax import contrib

from uets_jax.growth.copies import weight_copies

PARAMS = {"a": {"w": jnp.ones((2, 3))}, "b": jnp.zeros(4)}


def test_the_iterate_of_schedule_free_is_a_copy():
    tx = contrib.schedule_free_adamw(0.1)
    found = weight_copies(tx.init, PARAMS)
    assert {path[-2:] for path in found} == {("a", "w"), ("z", "b")}
    assert all("z" in path for path in found)


@pytest.mark.parametrize(
    "tx", [optax.adam(0.1), optax.lion(0.1), optax.sgd(0.1, 0.9), contrib.muon(0.1)]
)
def test_moments_are_no_copies(tx):
    assert weight_copies(tx.init, PARAMS) == frozenset()


def test_copies_are_found_through_casts_and_inner_functions():
    def init(params):
        cast = jax.jit(
            lambda tree: jax.tree.map(lambda x: x.astype(jnp.bfloat16), tree)
        )
        return {"slow": cast(params), "twice": jax.tree.map(lambda x: 2 * x, params)}

    assert weight_copies(init, PARAMS) == {("slow", "a", "w"), ("slow", "b")}


def test_shapes_are_enough():
    shapes = jax.eval_shape(lambda: PARAMS)
    assert weight_copies(lambda p: p, shapes) == {("a", "w"), ("b",)}
