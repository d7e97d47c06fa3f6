"""What the selection reads beside its state: tables and numbers, made once per run."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from uets_jax.aql.reference import Reference
from uets_jax.config import KnobsConfig
from uets_jax.selection import blind, dedup, lexical, minhash, quality
from uets_jax.selection.blind import BlindState
from uets_jax.selection.lexical import LexicalState
from uets_jax.selection.natural import typical_gain

LIKENESS_BINS, ORDER_BINS = 8, 4
BUCKETS = LIKENESS_BINS * ORDER_BINS
PROBED = 4096  # windows that set the scale of the scores
JUDGED = 512  # documents, about, that tell how much order natural text has
GATE = -1.0  # naturalness of what sets the scale


class Knobs(NamedTuple):
    """The numbers of `KnobsConfig`, traced."""

    temperature: Float[Array, ""]
    final_temperature: Float[Array, ""]
    anneal: Float[Array, ""]
    novelty: Float[Array, ""]
    copied: Float[Array, ""]
    natural: Float[Array, ""]
    progress: Float[Array, ""]
    uncertainty: Float[Array, ""]
    staleness: Float[Array, ""]
    ratio: Float[Array, ""]
    floor: Float[Array, ""]


class Scale(NamedTuple):
    """Mean and deviation of a score among natural text, and the edges of its bins."""

    mean: Float[Array, ""]
    deviation: Float[Array, ""]
    edges: Float[Array, " q"]


class Text(NamedTuple):
    """What is known of the text that will be offered.

    eot:      id of the separator between documents.
    blind:    counts that tell natural order.
    typical:  order gain of natural text.
    order:    scale of naturalness.
    lexical:  log-ratios against the target sample, or None without one.
    likeness: scale of the mean log-ratio, or None.
    """

    eot: Int[Array, ""]
    blind: BlindState
    typical: Float[Array, ""]
    order: Scale
    lexical: LexicalState | None
    likeness: Scale | None


class Assets(NamedTuple):
    """Arguments of the step that no step changes.

    text:       with method aql.
    reference:  with rho; None before there is one.
    difficulty: quantile of every training window's difficulty, where it is static.
    """

    knobs: Knobs
    text: Text | None = None
    reference: Reference | None = None
    difficulty: Float[Array, " windows"] | None = None


def knobs(config: KnobsConfig) -> Knobs:
    """As arrays."""
    return Knobs(*(jnp.float32(getattr(config, name)) for name in Knobs._fields))


def split(tokens: np.ndarray, eot: int) -> list[np.ndarray]:
    """The documents of a flat text, less their separators; none is empty."""
    tokens = np.asarray(tokens).astype(np.int32)
    starts = np.flatnonzero(tokens == eot)
    inner = starts[starts > 0]
    parts = [part[part != eot] for part in np.split(tokens, inner)]
    return [part for part in parts if len(part)]


def word_starts(pieces: Sequence[bytes]) -> np.ndarray:
    """bool [vocab]: the ids whose bytes begin with white space."""
    return np.array([raw[:1].isspace() for raw in pieces])


def fit_text(
    documents: Sequence[np.ndarray],
    eot: int,
    starts: np.ndarray,
    length: int,
    run: int,
    target: Iterable[np.ndarray] | None = None,
) -> Text:
    """Counts the text, less its copies, and finds the scales of the scores.

    Args:
      documents: ids of each; of an endless stream its beginning.
      eot: id of the separator between documents.
      starts: bool [vocab], which ids begin a word.
      length: tokens per window.
      run: windows per piece that is offered.
      target: sample of target text, if there is one.
    """
    keep = dedup.deduplicate(documents).keep
    kept = [ids for ids, new in zip(documents, keep, strict=True) if new]
    counts = blind.fit_blind(kept, starts)
    some = kept[:: max(len(kept) // JUDGED, 1)]
    typical = jnp.float32(typical_gain(blind.score_documents(counts, some)))
    sample = None if target is None else lexical.fit(target, kept)
    windows = _probe(kept, eot, length, run)
    separator = jnp.int32(eot)
    order = np.asarray(quality.order(counts, typical, windows, separator, run))
    natural = order > GATE
    natural = natural if natural.any() else np.ones_like(natural)
    scale = _scale(order[natural], ORDER_BINS)
    likeness = None
    if sample is not None:
        like = np.asarray(quality.likeness(sample, windows, separator, run))
        likeness = _scale(like[natural], LIKENESS_BINS)
    return Text(separator, counts, typical, scale, sample, likeness)


def operations(tokens: int, documents: int, length: int, target: bool) -> int:
    """Arithmetic of `fit_text`, integer operations included, at most.

    Args:
      tokens: of all documents.
      documents: how many.
      length: of the longest.
      target: there was a sample.
    """
    total = dedup.operations(tokens, documents, minhash.DedupConfig())
    judged = tokens * min(1, 2 * JUDGED / max(documents, 1))
    total += blind.operations(tokens, round(judged), length)
    if target:
        total += lexical.operations(tokens, 0, lexical.LexicalConfig())
    return total


def text_shapes(vocab: int, target: bool) -> Text:
    """Shapes of `fit_text`, for a cost estimate."""
    number: Any = jax.ShapeDtypeStruct((), jnp.float32)
    f32: Any = lambda n: jax.ShapeDtypeStruct((n,), jnp.float32)
    scale = lambda bins: Scale(number, number, f32(bins - 1))
    counted = jax.ShapeDtypeStruct((blind.BlindConfig().buckets,), jnp.int32)
    starts = jax.ShapeDtypeStruct((vocab,), jnp.bool_)
    counts = BlindState(starts, f32(vocab), counted, counted)  # pyright: ignore
    sample = LexicalState(f32(lexical.LexicalConfig().buckets)) if target else None  # pyright: ignore
    eot = jax.ShapeDtypeStruct((), jnp.int32)
    likeness = scale(LIKENESS_BINS) if target else None
    return Text(eot, counts, number, scale(ORDER_BINS), sample, likeness)  # pyright: ignore


def _probe(
    documents: Sequence[np.ndarray], eot: int, length: int, run: int
) -> Int[Array, "n l"]:
    """At most `PROBED` windows in pieces, spread evenly over the documents."""
    tokens = np.concatenate([np.append(eot, ids) for ids in documents]).astype(np.int32)
    size = length * run
    pieces = max(len(tokens) // size, 1)
    tokens = np.resize(tokens, pieces * size).reshape(pieces, run, length)
    chosen = np.unique(np.linspace(0, pieces - 1, max(PROBED // run, 1)).astype(int))
    return jnp.asarray(tokens[chosen].reshape(-1, length))


def _scale(scores: np.ndarray, bins: int) -> Scale:
    edges = np.quantile(scores, np.arange(1, bins) / bins)
    values = scores.mean(), max(float(scores.std()), 1e-6), edges
    return Scale(*(jnp.asarray(v, jnp.float32) for v in values))
