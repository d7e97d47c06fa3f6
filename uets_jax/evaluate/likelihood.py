"""Log-likelihoods of many short texts, in batches of few fixed shapes.

Each text has a row of its own, filled up on the right to a length of 16, 32, 64, ...
or the context; so a handful of executables serve every set of texts.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from uets_jax.data.tokenizer import Tokenizer
from uets_jax.errors import UserError
from uets_jax.evaluate.passages import Passage
from uets_jax.measure.jaxpr import count
from uets_jax.measure.work import Cost
from uets_jax.step import Program
from uets_jax.types import IGNORED, Batch, Params

SHORTEST = 16  # tokens of the shortest row
TOKENS = 4096  # tokens of a batch, padding included
SPARE = 8 * TOKENS  # tokens of padding that cost less than one more executable

_POWERS = tuple(SHORTEST << i for i in range(32))

Shape = tuple[int, int]  # rows, length


class Likelihoods(NamedTuple):
    """What each passage costs, in the order of the passages.

    nats:   minus the log-likelihood of its scored tokens.
    bytes:  UTF-8 bytes that these stand for.
    greedy: whether each is likelier than all other tokens; None if that wasn't asked.
    cut:    whether its start was cut off.
    shapes: batches that were computed, by rows and length.
    """

    nats: Float[np.ndarray, " n"]
    bytes: Int[np.ndarray, " n"]
    greedy: Bool[np.ndarray, " n"] | None
    cut: Bool[np.ndarray, " n"]
    shapes: dict[Shape, int]


def likelihoods(
    program: Program,
    params: Params,
    tokenizer: Tokenizer,
    found: Sequence[Passage],
    context: int,
    greedy: bool = False,
    put: Callable[[Batch], Batch] = lambda batch: batch,
    shards: int = 1,
) -> Likelihoods:
    """Nats of the scored tokens of every passage.

    Args:
      context: tokens of the longest row.
      greedy: also asks whether greedy decoding would write the scored tokens.
      put: places a batch on the devices.
      shards: the rows of a batch are a multiple of it.

    Raises:
      UserError: the tokenizer has more ids than the model.
    """
    check_vocabulary(program, params, tokenizer)
    call = compile_rows(program, tokenizer.vocab_size if greedy else 0)
    nats, hits = np.zeros(len(found)), np.zeros(len(found), bool)
    shapes: dict[Shape, int] = {}
    ahead: Any = None

    def read(rows: np.ndarray, out: Any) -> None:
        nats[rows] = np.asarray(out[0])[: len(rows)]
        if greedy:
            hits[rows] = np.asarray(out[1])[: len(rows)]

    for rows, batch in batches(found, tokenizer.eot, context, shards):
        here = rows, call(params, put(batch))
        if ahead is not None:
            read(*ahead)
        ahead = here  # read when the next one is under way
        shape = len(batch.tokens), batch.tokens.shape[1]
        shapes[shape] = shapes.get(shape, 0) + 1
    if ahead is not None:
        read(*ahead)
    ends = [p.tokens[len(p.tokens) - p.scored :] for p in found]
    sizes = [tokenizer.token_bytes[end].sum() for end in ends]
    return Likelihoods(
        nats,
        np.array(sizes, np.int64),
        hits if greedy else None,
        np.array([p.cut for p in found], bool),
        shapes,
    )


def check_vocabulary(program: Program, params: Params, tokenizer: Tokenizer) -> None:
    """Raises `UserError` if the tokenizer has ids that the model hasn't."""
    one: Any = jax.ShapeDtypeStruct((1, 1), np.int32)
    have = jax.eval_shape(program.logits, params, one).shape[-1]
    if have < tokenizer.vocab_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} ids, the model {have}; use the "
            "tokenizer that the model was trained with"
        )


def batches(
    found: Sequence[Passage], eot: int, context: int, shards: int = 1
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Numbers of passages and their rows; a batch may end in rows of padding."""
    wanted = np.array([len(p.tokens) - 1 for p in found], int)
    for length, fitting in buckets(wanted, context).items():
        rows = max(1, TOKENS // length // shards) * shards
        for start in range(0, len(fitting), rows):
            numbers = fitting[start : start + rows]
            yield numbers, fill([found[i] for i in numbers], rows, length, eot)


def buckets(wanted: np.ndarray, context: int) -> dict[int, np.ndarray]:
    """Length of a row -> numbers of the passages that get one, in order.

    Few passages wait for a longer row that others need: an executable less.
    """
    known = [*(n for n in _POWERS if n < context), context]
    found: dict[int, np.ndarray] = {}
    done = 0
    for length, longer in zip(known, [*known[1:], 0], strict=True):
        fitting = np.flatnonzero((wanted > done) & (wanted <= length))
        spare = len(fitting) * (longer - length)
        if len(fitting) and not (spare <= SPARE and wanted.max() > length):
            found[length], done = fitting, length
    return found


def fill(found: Sequence[Passage], rows: int, length: int, eot: int) -> Batch:
    """One passage a row, at its left; all else is padding."""
    tokens = np.full((rows, length), eot, np.int32)
    targets = np.full((rows, length), IGNORED, np.int32)
    for row, (ids, scored, _) in enumerate(found):
        end = len(ids) - 1
        tokens[row, :end] = ids[:-1]
        targets[row, end - scored : end] = ids[end + 1 - scored :]
    numbers = np.arange(rows, dtype=np.int32)
    fields: Any = (tokens, targets, numbers, np.zeros_like(tokens))
    return Batch(*fields)


@functools.lru_cache(maxsize=64)
def compile_rows(program: Program, vocab: int = 0):
    """Jits `(params, batch) -> (nats [B], greedy [B] or None)`, row by row.

    Greedy: each target is likelier than every other of the first `vocab` ids; 0: it is
    not asked for. XLA merges the pass of `logits` with that of `forward`.
    """

    def rows(
        params: Params, batch: Batch
    ) -> tuple[Float[Array, " b"], Bool[Array, " b"] | None]:
        nats = program.forward(params, batch)[0].sum(-1)
        if not vocab:
            return nats, None
        logits = program.logits(params, batch.tokens)[..., :vocab]
        known = batch.targets != IGNORED
        at = jnp.where(known, batch.targets, 0)[..., None]
        rivals = (logits >= jnp.take_along_axis(logits, at, -1)).sum(-1)
        return nats, ((rivals == 1) | ~known).all(-1)

    return jax.jit(rows)


@functools.lru_cache(maxsize=64)
def batch_cost(program: Program, shape: Shape) -> Cost:
    """FLOPs of one batch, less the search for a likelier token; compiles nothing.

    Raises:
      UserError: as `measure.jaxpr.count`.
    """
    params = jax.eval_shape(program.init, jax.random.key(0))
    struct = lambda *s: jax.ShapeDtypeStruct(s, np.int32)
    fields: Any = (struct(*shape), struct(*shape), struct(shape[0]), struct(*shape))
    traced = compile_rows(program).trace(params, Batch(*fields))
    return sum(count(traced.jaxpr).most().values(), Cost())
