"""Which windows a start from counts reads: those that the selection would choose."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from uets_jax.aql.assets import Assets
from uets_jax.aql.merit import merit
from uets_jax.config import SelectConfig
from uets_jax.selection import novelty
from uets_jax.types import IGNORED, Batch


def worth_counting(
    config: SelectConfig, assets: Assets, text: Batch
) -> Bool[Array, "chunks r"]:
    """True for natural, new windows; with a target sample the best 1 / candidates.

    Args:
      config: of the selection; `natural`, `lexical` and `novelty` are its switches.
      assets: with a `text`.
      text: all windows in their order, [chunks, R, L], R a multiple of `run`. A window
        is new if it has few n-grams of the chunks before its own.
    """
    known, knobs = assets.text, assets.knobs
    if known is None:
        raise ValueError("worth_counting: the assets have no text")
    chunks, rows = text.tokens.shape[:2]
    score = lambda tokens: merit(config, known, knobs, tokens)
    keys, _, bars = jax.lax.map(score, text.tokens)
    good = bars == 0
    if known.likeness is not None and config.lexical:
        flat = jnp.where(good, keys, -jnp.inf).ravel()
        last = jax.lax.top_k(flat, max(1, chunks * rows // config.candidates))[0][-1]
        good = good & (keys >= last)
    if not config.novelty:
        return good

    def look(memory: Any, chunk: Any) -> tuple[Any, Array]:
        batch, wanted = chunk
        place = batch.targets != IGNORED
        new = novelty.overlap(memory, batch.tokens, place) <= knobs.copied
        keep = wanted & new
        memory = novelty.remember(memory, batch.tokens, place & keep[:, None])
        return memory, keep

    return jax.lax.scan(look, novelty.init(), (text, good))[1]
