from types import SimpleNamespace

import jax
import jax.numpy as jnp
from hypothesis import given
from hypothesis import strategies as st

from uets_jax.measure.work import Cost, outputs, size

COSTS = st.builds(Cost, *[st.integers(0, 10**12)] * 4)


def test_costs_add_and_repeat():
    a, b = Cost(1, 2, 3, 4), Cost(10, 20, 30, 40)
    assert a + b == Cost(11, 22, 33, 44)
    assert 3 * a == a * 3 == a + a + a
    assert (a.total, Cost()) == (3, 0 * a)


@given(COSTS, COSTS, st.integers(0, 100), st.integers(0, 100))
def test_sums_and_multiples_obey_the_laws_of_arithmetic(a, b, m, n):
    assert a + b == b + a
    assert a + Cost() == 1 * a == a
    assert n * (a + b) == n * a + n * b
    assert (m + n) * a == m * a + n * a
    assert (a + b).total == a.total + b.total


def test_sizes_are_numbers_of_elements():
    [eqn] = jax.make_jaxpr(lambda x: jax.lax.top_k(x, 2))(jnp.ones((4, 5))).jaxpr.eqns
    assert size(eqn.invars[0]) == 20
    assert outputs(eqn) == 2 * 8  # values and their places
    assert size(SimpleNamespace(aval=None)) == 1  # a token has no shape
