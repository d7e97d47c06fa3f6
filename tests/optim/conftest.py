"""A small tree with a leaf of every role, and what its axes mean."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.models.axes import hidden_matrix, is_matrix, layer_axis, map_axes, role

SHAPES = {
    "embed": {"table": (6, 4)},
    "blocks": {
        "attention": {"output": {"w": (2, 2, 3, 4)}},
        "mlp": {"up": {"w": (2, 4, 5)}},
        "mlp_norm": {"scale": (2, 4)},
    },
    "head": {"w": (4, 6)},
}
ABOUT = {
    "matrices": functools.partial(map_axes, hidden_matrix),
    "decayed": functools.partial(map_axes, is_matrix),
    "layer_axis": functools.partial(map_axes, layer_axis),
    "roles": functools.partial(map_axes, role),
}


@pytest.fixture(scope="session")
def draw():
    """Normal numbers in the shape of the small tree, or of another, by seed."""

    def make(seed, like=None, dtype=jnp.float32):
        rng = np.random.default_rng(seed)
        is_shape = lambda x: isinstance(x, tuple)
        fill = lambda s: jnp.asarray(rng.normal(size=s), dtype)
        if like is None:
            return jax.tree.map(fill, SHAPES, is_leaf=is_shape)
        return jax.tree.map(lambda x: fill(x.shape), like)

    return make


@pytest.fixture(scope="session")
def small(draw):
    """Weights of the small tree."""
    return draw(0)


@pytest.fixture(scope="session")
def about():
    """The four functions that describe a model of this house."""
    return ABOUT
