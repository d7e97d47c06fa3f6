"""Short rows first: length warm-up in few shapes.

After sequence length warm-up (Li et al. 2022, arXiv:2108.06084). A batch keeps its
tokens and is cut into more, shorter rows, so every phase costs as many tokens a step.
"""

from collections.abc import Sequence

import jax.numpy as jnp

from uets_jax.errors import UserError
from uets_jax.types import Batch

Spec = tuple[tuple[int, float], ...]  # (length, share of the steps that it lasts until)


def parse(text: str, full: int) -> Spec:
    """`"32:0.1,64:0.3"`: rows of 32 until 10 % of the steps, of 64 until 30 %.

    Args:
      text: pairs `length:share`, both rising; "" is no warm-up.
      full: the length that follows; every other must divide it.

    Raises:
      UserError: for the first pair that can't be read or used.
    """
    spec: Spec = ()
    for pair in filter(None, (part.strip() for part in text.split(","))):
        length, colon, share = pair.partition(":")
        try:
            spec = (*spec, (int(length), float(share)))
        except ValueError:
            colon = ""
        if not colon:
            raise UserError(f"length warm-up {pair!r}: write length:share, as 32:0.1")
    return check(spec, full)


def check(spec: Sequence[tuple[int, float]], full: int) -> Spec:
    """The warm-up unchanged.

    Raises:
      UserError: for the first pair that can't be used.
    """
    before, until = 0, 0.0
    for length, share in spec:
        name = f"length warm-up {length}:{share:g}"
        if length < 1 or full % length or length == full:
            raise UserError(f"{name}: {length} must divide {full} and be less")
        if length <= before:
            raise UserError(f"{name}: lengths must rise, {before} came before")
        if not until < share <= 1:
            raise UserError(f"{name}: shares must rise from {until:g} to at most 1")
        before, until = length, share
    return tuple(spec)


def phases(
    steps: int, spec: Sequence[tuple[int, float]], full: int
) -> tuple[tuple[int, int], ...]:
    """(end_step, length) of every phase of constant shape; the last ends at `steps`.

    A phase that would have no step is left out.
    """
    ends = [(round(steps * share), length) for length, share in check(spec, full)]
    found: list[tuple[int, int]] = []
    for end, length in [*ends, (steps, full)]:
        if end > (found[-1][0] if found else 0):
            found.append((end, length))
    return tuple(found)


def cut(batch: Batch, length: int) -> Batch:
    """[B, L] as [B L / length, length]: the same tokens, in rows that forget more.

    Pieces of a row stay neighbours and keep its id; segments count from 0 in every
    row. Pure: belongs inside the compiled step.

    Raises:
      UserError: `length` does not divide L.
    """
    full = batch.tokens.shape[1]
    if length < 1 or full % length:
        raise UserError(f"length {length}: must divide the rows' length {full}")
    tokens, targets, segments = (
        x.reshape(-1, length) for x in (batch.tokens, batch.targets, batch.segments)
    )
    ids = jnp.repeat(batch.ids, full // length)
    return Batch(tokens, targets, ids, segments - segments[:, :1])
