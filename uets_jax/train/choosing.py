"""Which heads, units and layers go when a run prunes: measured on its next batch."""

import dataclasses

import jax
import numpy as np

from uets_jax.growth.prune import (
    keep_heads,
    keep_hidden,
    keep_layers,
    magnitude,
    random_scores,
)
from uets_jax.growth.stages import Op, prunes
from uets_jax.train.looking import measured
from uets_jax.train.run import Run
from uets_jax.types import Batch


def completed(run: Run, batch: Batch, op: Op) -> Op:
    """The op as it is; one that prunes with what it keeps, as `growth.prune` says.

    With a value residual each head reads the values of the same head of the first
    layer, so all layers keep the same ones.
    """
    model = run.session.config.model
    if not prunes(model, op):
        return op
    scores = _scores(run, batch, op.field)
    if op.field == "depth":
        return dataclasses.replace(op, keep=(keep_layers(scores, op.size),))
    if op.field == "heads":
        if model.value_residual:
            scores = np.tile(scores.sum(0), (model.depth, 1))
        keep = keep_heads(scores, op.size, model.kv_heads).query
    else:
        keep = keep_hidden(scores, op.size)
    return dataclasses.replace(op, keep=tuple(map(tuple, keep)))


def _scores(run: Run, batch: Batch, field: str) -> np.ndarray:
    """Of layers [layers], or of heads or units [layers, n]."""
    how, model = run.origin.growth.prune, run.session.config.model
    if how == "importance":
        if field == "depth":
            return np.asarray(measured(run, batch, "removal"))
        return np.asarray(getattr(measured(run, batch, "look"), field))
    if how == "random":
        key = jax.random.fold_in(jax.random.key(run.origin.train.seed), run.at.step)
        if field == "depth":
            return np.asarray(random_scores(key, 1, model.depth))[0]
        return np.asarray(random_scores(key, model.depth, getattr(model, field)))
    heads, hidden = (np.asarray(found) for found in magnitude(run.state.params))
    if field == "depth":
        return heads.sum(1) + hidden.sum(1)
    return heads if field == "heads" else hidden
