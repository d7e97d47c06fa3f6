"""Validation loss, perplexity, bits per UTF-8 byte; the unigram model beside them."""

import functools
import math
from collections.abc import Iterable

import jax
import numpy as np
from jaxtyping import Array, Float

from uets_jax.step import Program
from uets_jax.types import IGNORED, Batch, Params


@functools.lru_cache(maxsize=64)
def compile_losses(program: Program):
    """Jits `(params, batch) -> sum of token losses in nats`."""

    def total(params: Params, batch: Batch) -> Float[Array, ""]:
        return program.forward(params, batch)[0].sum()

    return jax.jit(total)


def perplexity(
    program: Program, params: Params, batches: Iterable[Batch], put=lambda batch: batch
) -> dict[str, float | int]:
    """`valid_loss` in nats per token and `perplexity`, with `valid_tokens`,
    `valid_batches` and `valid_nats` (the sum) beside them.

    Args:
      batches: host batches of one shape; targets `IGNORED` are not counted.
      put: places a batch on the devices.
    """
    losses, totals, tokens, ahead = compile_losses(program), [], 0, None
    for batch in batches:
        here = losses(params, put(batch))
        totals += [] if ahead is None else [float(ahead)]
        ahead = here  # read when the next one is under way
        tokens += int((np.asarray(batch.targets) != IGNORED).sum())
    totals += [] if ahead is None else [float(ahead)]
    nats = math.fsum(totals)
    loss = nats / max(tokens, 1)
    return {
        "valid_loss": loss,
        "perplexity": math.exp(loss) if loss < 700 else math.inf,
        "valid_tokens": tokens,
        "valid_batches": len(totals),
        "valid_nats": nats,
    }


def target_bytes(batches: Iterable[Batch], token_bytes: np.ndarray) -> int:
    """UTF-8 bytes that the targets of `batches` stand for."""
    total = 0
    for batch in batches:
        targets = np.asarray(batch.targets)
        total += int(token_bytes[targets[targets != IGNORED]].sum())
    return total


def bits_per_byte(nats: float, size: int) -> float:
    """Bits that the model spends on each byte of the text."""
    return nats / math.log(2) / max(size, 1)


def unigram_nats(tokens: np.ndarray, batches: Iterable[Batch], vocab: int) -> float:
    """What a unigram model of `tokens` (add-one smoothed) spends on the targets."""
    counts = np.ones(vocab)
    for start in range(0, len(tokens), 1 << 22):
        counts += np.bincount(tokens[start : start + (1 << 22)], minlength=vocab)
    cost = -np.log(counts / counts.sum())
    total = 0.0
    for batch in batches:
        targets = np.asarray(batch.targets)
        total += float(cost[targets[targets != IGNORED]].sum())
    return total
