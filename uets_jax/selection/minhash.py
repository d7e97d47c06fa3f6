"""MinHash signatures: short keys that similar token sequences are likely to share."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt32

from uets_jax.errors import UserError
from uets_jax.selection.documents import Flat, within
from uets_jax.selection.hashing import (
    MIX_OPERATIONS,
    PAD,
    Hashes,
    check_buckets,
    constants,
    mix,
    ngram_operations,
    ngrams,
)

BLOCK = 1 << 15  # shingles that NumPy hashes at once: they stay in the cache

_LAST = np.uint32(0xFFFFFFFF)
_NEVER_ZERO = np.array([[[0, 1]]], np.uint32)


@dataclasses.dataclass(frozen=True)
class DedupConfig:
    """Which texts count as copies of each other, and how many are remembered.

    Texts of Jaccard similarity s match with probability 1 - (1 - s^rows)^bands
    (Broder 1997; Leskovec et al., Mining of Massive Datasets, ch. 3), which passes
    through one half near (1 / bands)^(1 / rows) = 0.53 by default.

    A copy with edited tokens is found, by the formulas below, with probability

        edited tokens      2 %    3.5 %   5 %
        default           1.000  1.000   0.984
        5, 14 x 8         0.966  0.647   0.300

    and unrelated text of similarity 0.2 is taken for a copy with 0.008. Measured on
    the mixture pool (`experiments/pool.py`: 7,891 texts of 2.9 kB, of them 1,775 copies
    that come after another; a 1k BPE; in the pool's order): percent of copies that
    were found, by edit, and of texts that stand there once and were dropped:

        shingle, bands x rows   exact  words  passage  characters | target  near
        4, 25 x 5 (default)      97.2   99.0     99.0        69.2 |    6.5   1.9
        5, 25 x 5                95.6   97.7     99.0        44.4 |    5.2   2.3
        5, 28 x 4                98.1   98.7    100.0        74.6 |    8.5   4.3
        3, 20 x 5                98.5   99.0    100.0        76.3 |    7.8   2.6
        5, 14 x 8 (datatrove)    93.0   96.1     98.0         7.9 |    0.4   0.6

    By default recall is 0.93 and precision 0.95, boilerplate apart (of which 74 %
    falls). Edited characters break many tokens, and an exact copy is as hard when only
    such a version came before. The target texts that fall are mostly pages filled in
    after one form, of true similarity 0.3 to 0.6. Windows of a text that are cut
    elsewhere are not copies to it: half a window in common is s = 1/3, found with 0.1.

    shingle: tokens per shingle; a text is the set of its shingles.
    bands:   keys per text; two texts match when they share one key.
    rows:    MinHash values per key.
    slots:   keys remembered per band, a power of two; a newer key overwrites.

    Raises:
      UserError: a number is out of range.
    """

    shingle: int = 4
    bands: int = 25
    rows: int = 5
    slots: int = 1 << 16

    def __post_init__(self) -> None:
        for name in ("shingle", "bands", "rows"):
            if getattr(self, name) < 1:
                value = getattr(self, name)
                raise UserError(f"dedup.{name}: must be at least 1, got {value}")
        check_buckets("dedup.slots", self.slots)


def edited_similarity(rate: float, config: DedupConfig) -> float:
    """Expected Jaccard similarity of a text and its copy with edited tokens.

    A shingle survives with p = (1 - rate)^shingle; J = p / (2 - p).
    """
    survival = (1 - rate) ** config.shingle
    return survival / (2 - survival)


def match_probability(similarity: float, config: DedupConfig) -> float:
    """1 - (1 - s^rows)^bands: that two texts of Jaccard similarity s match."""
    return 1 - (1 - similarity**config.rows) ** config.bands


def signatures(
    tokens: Int[Array, "n l"], lengths: Int[Array, " n"], config: DedupConfig
) -> UInt32[Array, "n k 2"]:
    """Keys of rows of tokens: one of the whole text, one per band.

    Key 0 is a 64-bit hash of tokens and length (equal texts share it), keys 1 .. bands
    fold `rows` minima of 32-bit affine hashes over the shingles. A text shorter than
    a shingle is one shingle. No key is zero in both words.

    Args:
      tokens: ids; what stands behind `lengths` is ignored.
      lengths: tokens per row.

    Returns:
      Two words per key; k = 1 + bands. Padding a row changes nothing.
    """
    ids, place = tokens.astype(jnp.uint32), jnp.arange(tokens.shape[1])[None]
    inside = place < lengths[:, None]
    tail = jnp.full((tokens.shape[0], config.shingle - 1), PAD)
    padded = jnp.concatenate([jnp.where(inside, ids, PAD), tail], axis=1)
    shingles = ngrams(padded, config.shingle)
    counted = place <= jnp.maximum(lengths[:, None] - config.shingle, 0)

    factor, term = jnp.asarray(_affine(config).T)[:, None]

    def lower(minima: Array, column: Array) -> tuple[Array, None]:
        return jnp.minimum(minima, column[:, None] * factor + term), None

    most = jnp.full((len(shingles), factor.size), _LAST)
    filled = jnp.where(counted, shingles, shingles[:, :1])  # the first one counts
    minima, _ = jax.lax.scan(lower, most, filled.T, unroll=8)

    position = place.astype(jnp.uint32)
    placed = [jnp.where(inside, _placed(ids, position, seed), 0) for seed in (0, 1)]
    sums = [one.sum(1, dtype=jnp.uint32) for one in placed]
    return _keys(jnp, sums, lengths, minima, config)


def document_signatures(
    texts: Flat, config: DedupConfig
) -> UInt32[np.ndarray, "n k 2"]:
    """`signatures` of texts of any length, in NumPy and cache-sized blocks."""
    size, lengths = config.shingle, texts.lengths
    held = lengths + size
    starts, place = np.cumsum(held) - held, within(held)
    padded = np.full(len(place) + size - 1, PAD)
    padded[np.arange(len(texts.ids)) + size * texts.text] = texts.ids
    inner = np.maximum(lengths - size, 0)
    shingles = ngrams(padded, size)[place <= np.repeat(inner, held)]
    minima = _minima(shingles, inner + 1, config)

    ids, position = padded[: len(place)], place.astype(np.uint32)
    inside = place < np.repeat(lengths, held)
    placed = [np.where(inside, _placed(ids, position, seed), 0) for seed in (0, 1)]
    sums = [np.add.reduceat(one, starts, dtype=np.uint32) for one in placed]
    return _keys(np, sums, lengths, minima, config)


def operations(tokens: int, config: DedupConfig) -> int:
    """Integer operations of the signatures of so many tokens.

    Per token: one shingle, two placed tokens (21 each), the two masks (3), and a
    product, a sum and a minimum per MinHash value: 459 with the default config. The
    ledger books integers as FLOPs too, and counts that much in `signatures`.
    """
    values = config.bands * config.rows
    placed = 2 * (2 * MIX_OPERATIONS + 5)
    return tokens * (ngram_operations(config.shingle) + placed + 3 + 3 * values)


def _affine(config: DedupConfig) -> np.ndarray:
    """uint32 [bands * rows, 2]: an odd factor and a term per MinHash value."""
    words = constants(2 * config.bands * config.rows, seed=1).reshape(-1, 2)
    return words | np.array([1, 0], np.uint32)


def _minima(
    shingles: np.ndarray, counts: np.ndarray, config: DedupConfig
) -> np.ndarray:
    """uint32 [n, bands * rows]: minima over the consecutive shingles of each text."""
    affine, ends = _affine(config), np.cumsum(counts)
    minima = np.full((len(affine), len(counts)), _LAST)
    for start in range(0, len(shingles), BLOCK):
        block = shingles[start : start + BLOCK]
        stop = start + len(block)
        first, last = np.searchsorted(ends, (start, stop - 1), side="right")
        cuts = np.maximum((ends - counts)[first : last + 1] - start, 0)
        for one, (factor, term) in zip(
            minima[:, first : last + 1], affine, strict=True
        ):
            np.minimum(one, np.minimum.reduceat(block * factor + term, cuts), out=one)
    return minima.T


def _placed(ids: Hashes, position: Hashes, seed: int) -> Hashes:
    """Hashes of tokens in their places; their sum is a hash of the sequence."""
    first, second = constants(2, seed=2 + seed)
    return mix(mix(ids ^ first) ^ (position * (second | np.uint32(1))))


def _keys(
    xp: Any,
    sums: list[Hashes],
    lengths: Hashes,
    minima: Hashes,
    config: DedupConfig,
) -> Hashes:
    """Sums of placed tokens and minima [n, bands * rows] to keys [n, 1 + bands, 2]."""
    whole = mix(xp.stack(sums, 1) ^ mix(lengths.astype(np.uint32))[:, None])
    rows = minima.reshape(-1, config.bands, config.rows)
    bands = xp.concatenate([ngrams(rows, config.rows, seed) for seed in (2, 3)], 2)
    return xp.concatenate([whole[:, None], bands], 1) | _NEVER_ZERO
