"""Growth in a training loop of your own: parameters and any optax state, one call."""

from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from uets_jax.config import ModelConfig
from uets_jax.errors import UserError, nearest
from uets_jax.growth.copies import weight_copies
from uets_jax.growth.operators import (
    Moments,
    by_path,
    move_params,
    move_state,
    shapes_of,
)
from uets_jax.growth.plan import moves
from uets_jax.growth.stages import Op, resized
from uets_jax.models.axes import names
from uets_jax.models.transformer import make_model
from uets_jax.types import Params

MOMENTS = get_args(Moments)


class Grown(NamedTuple):
    """What a loop goes on with.

    begun: leaves of the optimizer's state that could not be carried over.
    """

    model: ModelConfig
    params: Params
    opt_state: Any
    begun: tuple[str, ...]


def grown(
    model: ModelConfig,
    params: Params,
    tx: optax.GradientTransformation,
    opt_state: Any,
    op: Op,
    key: Key[Array, ""],
    moments: Moments = "carry",
) -> Grown:
    """The model after an op, its parameters, and the optimizer's state for them.

    Args:
      model: of `params`; `models.transformer.make_model` gives its functions.
      params: before.
      tx: an optax transformation; its `init` is the template of the new state.
      opt_state: before.
      op: as `Op("depth", 4, "identity")`; `growth.plan` says what keeps the function.
      key: of fresh entries.
      moments: "carry", "template" or "reset", see `GrowthConfig.moments`.

    Raises:
      UserError: for an op that can't be applied to the model, parameters that are not
        its, or another word for `moments`.
    """
    if moments not in MOMENTS:
        raise UserError(f"moments: {moments!r}: {nearest(str(moments), MOMENTS)}")
    _check_params(model, params)
    after, how = resized(model, op), moves(model, op)
    if op.field == "frozen":
        return Grown(after, params, opt_state, ())
    fresh, noise = jax.random.split(key)
    new = move_params(how, params, jax.jit(make_model(after).init)(fresh), noise)
    template = tx.init(new)
    if moments == "reset":
        return Grown(after, new, template, ())
    shapes = shapes_of(how, params, new)
    depths = (model.depth, after.depth)
    copies = weight_copies(tx.init, new)
    moved = (how, depths, opt_state, template, shapes, moments, copies)
    found = move_state(*moved, by_path(params))
    return Grown(after, new, found.state, found.begun)


def _check_params(model: ModelConfig, params: Params) -> None:
    """Raises `UserError` for a parameter that the model lacks or has otherwise."""
    wanted = _shapes(jax.eval_shape(make_model(model).init, jax.random.key(0)))
    had = _shapes(params)
    for path in sorted(wanted.keys() | had.keys()):
        if had.get(path) != wanted.get(path):
            raise UserError(
                f"params: {'/'.join(path)}: shape {had.get(path)}, the model's "
                f"{wanted.get(path)}; give the ModelConfig that made them"
            )


def _shapes(tree: Any) -> dict[tuple[str, ...], tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {names(path): tuple(jnp.shape(x)) for path, x in leaves}
