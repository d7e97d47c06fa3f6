"""Growth in a training loop of your own: parameters and any optax state, one call."""

from typing import Any, NamedTuple

import jax
import optax
from jaxtyping import Array, Key

from uets_jax.config import ModelConfig
from uets_jax.growth.operators import Moments, move_params, move_state, shapes_of
from uets_jax.growth.plan import moves
from uets_jax.growth.stages import Op, resized
from uets_jax.models.transformer import make_model
from uets_jax.types import Params


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
      UserError: for an op that can't be applied to the model.
    """
    after, how = resized(model, op), moves(model, op)
    fresh, noise = jax.random.split(key)
    new = move_params(how, params, jax.jit(make_model(after).init)(fresh), noise)
    template = tx.init(new)
    if moments == "reset":
        return Grown(after, new, template, ())
    shapes = shapes_of(how, params, new)
    depths = (model.depth, after.depth)
    found = move_state(how, depths, opt_state, template, shapes, moments)
    return Grown(after, new, found.state, found.begun)
