"""The streaming selection for a training loop of one's own, in one call."""

from collections.abc import Iterable, Sequence

import numpy as np

from uets_jax.aql.adapters import bandit, last_layer
from uets_jax.aql.assets import Assets, fit_text, knobs, split, word_starts
from uets_jax.aql.streaming import aql
from uets_jax.component import Selection
from uets_jax.config import SelectConfig
from uets_jax.errors import UserError

DEFAULT = SelectConfig(method="aql")


def selector(
    tokens: np.ndarray,
    eot: int,
    pieces: Sequence[bytes],
    batch: int,
    length: int,
    config: SelectConfig = DEFAULT,
    target: Iterable[np.ndarray] | None = None,
    width: int = 0,
) -> tuple[Selection, Assets]:
    """A selection, and the assets that its moments carry.

    Feed it pools of `batch * config.candidates` windows, `config.run` consecutive ones
    at a time (`data.windows.Windows` with that `piece` makes them).

    Args:
      tokens: ids of the text in one dimension, or of the beginning of a stream.
      eot: id of the separator before every document.
      pieces: bytes of every token; those that begin with white space begin a word.
      batch: rows that a step trains on.
      length: tokens per row.
      config: mode, parts and knobs.
      target: ids of a sample of target text, in mode `target`.
      width: features that the model's head reads, for the Laplace posterior; 0: none.

    Raises:
      UserError: mode and sample don't go together, or the text has no order.
    """
    if batch * config.candidates % config.run or config.buffer < batch:
        raise UserError(
            f"selector: batch {batch} x {config.candidates} candidates must be a "
            f"multiple of select.run = {config.run}, and select.buffer hold a batch"
        )
    if (config.mode == "target") != (target is not None):
        raise UserError("select.mode: 'target' and a sample of target text go together")
    documents, starts = split(tokens, eot), word_starts(pieces)
    text = fit_text(documents, eot, starts, length, config.run, target)
    posterior = None
    if width and config.uncertainty:
        posterior = last_layer(width, len(pieces))
    learned = bandit() if config.policy and config.buckets else None
    select = aql(config, batch, length, None, posterior, learned)
    return select, Assets(knobs(config.knobs), text)
