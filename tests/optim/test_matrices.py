import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.optim.matrices import from_matrices, sizes, to_matrices

# shape, (input axes, output axes), shape as matrices
CASES = [
    ((2, 3, 4, 5), ((1, 2), (3,)), (2, 12, 5)),
    ((2, 3, 4, 5), ((1,), (2, 3)), (2, 3, 20)),
    ((2, 3, 4, 5), ((2,), (3,)), (2, 3, 4, 5)),
    ((3, 4), ((1,), (0,)), (4, 3)),
]


@pytest.mark.parametrize(("shape", "axes", "expected"), CASES)
def test_leaves_become_matrices_and_come_back(shape, axes, expected):
    x = jnp.arange(float(np.prod(shape))).reshape(shape)
    m = to_matrices(x, axes)
    assert m.shape == expected
    assert sizes(shape, axes) == expected[-2:]
    np.testing.assert_array_equal(from_matrices(m, axes, shape), x)


def test_inputs_are_rows_in_the_order_of_their_axes():
    x = jnp.arange(24.0).reshape(2, 3, 4)
    m = np.asarray(to_matrices(x, ((2, 0), (1,))))
    for i, j, k in np.ndindex(2, 3, 4):
        assert m[k * 2 + i, j] == x[i, j, k]
