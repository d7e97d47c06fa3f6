"""A frozen prefix: the embedding side and the first blocks run, but are not trained.

With `model.frozen` = k the function stays as it is. The backward pass ends above block
k - 1, so the k blocks cost a forward pass instead of three; their updates are zero.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from uets_jax.config import ModelConfig
from uets_jax.models.axes import axes_of, layer_axis, role
from uets_jax.types import Params


def scan_above(
    step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, rows: Any, below: int
) -> tuple[Any, Any]:
    """`jax.lax.scan(step, carry, rows)` as two scans, the first `below` rounds without
    a derivative.

    Neither `carry` nor the rows of those rounds get a gradient, and no backward pass
    of them is computed or kept anything for.
    """
    first = jax.tree.map(lambda x: x[:below], rows)
    rest = jax.tree.map(lambda x: x[below:], rows)
    carry, seen = jax.lax.scan(step, *jax.lax.stop_gradient((carry, first)))
    carry, also = jax.lax.scan(step, carry, rest)
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), seen, also)


def held(model: ModelConfig, updates: Params) -> Params:
    """`updates` with 0 for what is frozen: it is moved by no gradient, no weight decay
    and no momentum.

    Frozen are the first `model.frozen` rows of what is stacked by layers, and the
    tables at the input: of tokens, unless the head is the same table (`model.tied`), of
    positions and of n-grams. A tied table gets the gradient of the head alone, and
    moves by it, under the frozen blocks, too.

    The update rule itself does not know: it sees zero gradients, so that first and
    second moments of frozen entries decay as after a batch that says nothing of them,
    and costs what it did. After a thaw they begin from there.
    """

    def hold(path: Any, update: jax.Array) -> jax.Array:
        axes = axes_of(path, update.ndim)
        if layer_axis(axes) == 0:
            still = jnp.zeros_like(update[: model.frozen])
            return jnp.concatenate([still, update[model.frozen :]])
        learns = role(axes) != "embedding" or (model.tied and axes[0] == "vocab")
        return update if learns else jnp.zeros_like(update)

    return jax.tree_util.tree_map_with_path(hold, updates)
