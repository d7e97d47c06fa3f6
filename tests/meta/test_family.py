"""Rows of a smaller batch repeat, cross-entropy is that of the textbook."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.meta.family import cross_entropy, distinct, repeated


def test_rows_repeat_the_first_ones():
    draws = jnp.arange(10, 18)
    np.testing.assert_array_equal(
        distinct(jnp.asarray(3), 8, draws), [10, 11, 12, 10, 11, 12, 10, 11]
    )
    np.testing.assert_array_equal(distinct(jnp.asarray(99), 8, draws), draws)
    np.testing.assert_array_equal(distinct(jnp.asarray(0), 8, draws), 10)
    np.testing.assert_array_equal(repeated(jnp.asarray(2), 5), [0, 1, 0, 1, 0])


def test_cross_entropy_is_the_mean_of_negative_log_probabilities():
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])) + 7.0
    loss = cross_entropy(logits, jnp.array([0, 2]))
    np.testing.assert_allclose(loss, -(np.log(0.5) + np.log(0.8)) / 2, rtol=1e-5)
    slope = jax.grad(lambda x: cross_entropy(x, jnp.array([0, 2])))(logits)
    np.testing.assert_allclose(slope[0], [-0.25, 0.125, 0.125], atol=1e-6)


@pytest.mark.parametrize("name", ["batch", "horizon", "learning_rate"])
def test_a_number_that_is_none_is_named(name, bowl):
    family = bowl()
    zero = type(getattr(family, name))(0)
    with pytest.raises(UserError, match=f"family bowl: {name} must be above 0"):
        dataclasses.replace(family, **{name: zero})
