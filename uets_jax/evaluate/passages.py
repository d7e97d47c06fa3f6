"""Texts as tokens of which the last are scored: where a text is cut, what is kept."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from uets_jax.data.tokenizer import Tokenizer


class Passage(NamedTuple):
    """Tokens of which the last `scored` carry loss; the first is only looked at.

    The first is the separator, unless `cut`: the text was longer than the context.
    """

    tokens: Int[np.ndarray, " n"]
    scored: int
    cut: bool


def passages(
    tokenizer: Tokenizer, texts: Sequence[tuple[str, str]], context: int
) -> list[Passage]:
    """Tokens of (given text, scored text), after the separator.

    The two are encoded as one text, and what is scored are the tokens after those of
    the given text alone. Where these are not the beginning (a BPE joined characters
    across the border), the two are encoded apart. So the scored tokens always stand
    for the scored text, byte by byte. Of more than `context` tokens the last stay.

    Raises:
      UserError: for text that the tokenizer can't encode.
    """
    whole = tokenizer.encode_batch([given + scored for given, scored in texts])
    heads = tokenizer.encode_batch([given for given, _ in texts])
    joined = [
        len(head) < len(ids) and np.array_equal(ids[: len(head)], head)
        for ids, head in zip(whole, heads, strict=True)
    ]
    apart = [i for i, fits in enumerate(joined) if not fits]
    tails = tokenizer.encode_batch([texts[i][1] for i in apart])
    for i, tail in zip(apart, tails, strict=True):
        whole[i] = np.concatenate([heads[i], tail])
    first = np.array([tokenizer.eot], np.int32)
    found = []
    for ids, head in zip(whole, heads, strict=True):
        tokens = np.concatenate([first, ids])
        kept = tokens[-context - 1 :]
        scored = min(len(ids) - len(head), context)
        found.append(Passage(kept, scored, len(kept) < len(tokens)))
    return found
