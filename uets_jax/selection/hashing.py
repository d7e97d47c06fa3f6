"""One hash of token n-grams, in uint32 arithmetic, the same in NumPy and in JAX.

Every function takes and returns arrays of the library that its input belongs to, so a
table that the host fills with NumPy can be read inside a compiled step. No 64-bit
integers are needed.
"""

from typing import TypeVar

import jax
import numpy as np

from uets_jax.errors import UserError

Hashes = TypeVar("Hashes", np.ndarray, jax.Array)  # uint32

PAD = np.uint32(0xFFFFFFFF)  # stands behind the end of a text; no token has this id

MIX_OPERATIONS = 8  # per element of `mix`

_FIRST, _SECOND, _STEP = (np.uint32(c) for c in (0x7FEB352D, 0x846CA68B, 0x9E3779B1))


def mix(x: Hashes) -> Hashes:
    """A bijection of uint32 in which every input bit flips half of the output bits.

    The finaliser "lowbias32" (C. Wellons, "Prospecting for hash functions", 2018):
    shift-xor by 16, multiply, shift-xor by 15, multiply, shift-xor by 16.
    """
    x = (x ^ (x >> np.uint32(16))) * _FIRST
    x = (x ^ (x >> np.uint32(15))) * _SECOND
    return x ^ (x >> np.uint32(16))


def ngrams(tokens: Hashes, order: int, seed: int = 0) -> Hashes:
    """Hashes of all n-grams of `order` tokens along the last axis.

    Args:
      tokens: uint32 [..., l].
      order: tokens per n-gram, at least 1.
      seed: another seed is another, independent hash.

    Returns:
      uint32 [..., l - order + 1]; entry t belongs to the tokens t .. t + order - 1.
    """
    count = tokens.shape[-1] - order + 1
    salt = np.uint32((seed * 0x632BE5AB + order * 0x85157AF5) % 2**32)
    hashed = mix(tokens[..., :count] ^ salt)
    for place in range(1, order):
        hashed = extend(hashed, tokens[..., place : place + count])
    return hashed


def extend(hashed: Hashes, tokens: Hashes) -> Hashes:
    """Hashes of n-grams with one more token at the end of each."""
    return mix(hashed * _STEP ^ tokens)


def bucket(hashed: Hashes, buckets: int) -> Hashes:
    """int32 below `buckets`, a power of two: the first bits of a hash."""
    return (hashed >> np.uint32(33 - buckets.bit_length())).astype(np.int32)


def check_buckets(name: str, value: int) -> None:
    """Raises UserError unless `value` is a power of two from 2 to 2^30."""
    if not 2 <= value <= 1 << 30 or value & (value - 1):
        raise UserError(f"{name}: must be a power of two from 2 to 2**30, got {value}")


def ngram_operations(order: int) -> int:
    """Integer operations per n-gram of `ngrams`, which the ledger books as FLOPs."""
    return 1 + MIX_OPERATIONS + (order - 1) * (2 + MIX_OPERATIONS)


def constants(count: int, seed: int) -> np.ndarray:
    """`count` fixed pseudo-random words, uint32; the same on every machine."""
    numbers = np.arange(count, dtype=np.uint32) + np.uint32(1)
    return mix(mix(numbers) ^ np.uint32(seed * 0x9E3779B1 % 2**32))
