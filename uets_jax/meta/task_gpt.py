"""Tiny transformers of the house on a source of tokens."""

import functools
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from uets_jax.config import ModelConfig
from uets_jax.meta.family import Family
from uets_jax.meta.task_text import Source
from uets_jax.models.presets import model_config
from uets_jax.models.transformer import make_model
from uets_jax.types import Batch


def gpt(
    source: Source,
    width: int = 16,
    depth: int = 1,
    context: int = 16,
    batch: int = 8,
    horizon: int = 200,
    rate: float = 2e-2,
) -> Family:
    """Next-token prediction by the preset "modern", blocks stacked by scan.

    Args:
      source: of the tokens; sets the vocabulary.
      width: of the residual stream, in heads of 8.
      depth: blocks.
      context: tokens of a row.
      batch: rows of a mini-batch.
      horizon: nominal steps.
      rate: the peak learning rate.
    """
    model = make_model(gpt_config(source.vocab, width, depth, context))

    def mean_loss(params: Any, rows: Int[Array, "b t"]) -> Float[Array, ""]:
        inputs, targets = rows[:, :-1], rows[:, 1:]
        ids = jnp.arange(len(rows), dtype=jnp.int32)
        batch = Batch(inputs, targets, ids, jnp.zeros_like(inputs))
        return model.forward(params, batch)[0].mean()

    def loss(
        params: Any, instance: Any, key: Key[Array, ""], rows: Int[Array, ""]
    ) -> Float[Array, ""]:
        return mean_loss(params, source.draw(instance, key, batch, context + 1, rows))

    def held(params: Any, instance: Any) -> Float[Array, ""]:
        return mean_loss(params, source.held(instance, context + 1))

    name = f"gpt-{width}x{depth}x{context}"
    about = f"{name} (width, depth, context) on {source.name}, {batch} rows"
    return Family(
        f"{name}/{source.name}",
        source.instance,
        lambda instance, key: model.init(key),
        loss,
        held,
        batch,
        horizon,
        rate,
        0.1,
        about,
    )


@functools.cache
def gpt_config(vocab: int, width: int, depth: int, context: int) -> ModelConfig:
    """The config of a tiny transformer: heads of 8, hidden 4 x width."""
    return model_config(
        "modern",
        "tiny",
        vocab=vocab,
        width=width,
        depth=depth,
        context=context,
        heads=max(1, width // 8),
        head_dim=8,
    )
