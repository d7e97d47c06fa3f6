r"""The most that choosing data can save on a pool, from what the pool consists of.

Uniform training draws a fraction f of the pool's bytes. Text that stands there k times
is met at least once with probability $1 - (1 - f)^k$, so of what is drawn the shares

    q(f) = sum over target texts of  s (1 - (1 - f)^k) / (f P),   o(f) alike for near,

are text met for the first time: s bytes of one copy, P bytes of the pool. An oracle
that trains on such target text alone needs fewer tokens by at most the factor

    S(f, w) = 1 / (q(f) + w o(f)),

w being what a byte of near text is worth in bytes of target text. q(1) counts every
text once (unique text and one copy of each duplicated one), q(0) every copy.

Assumed: repeated text and noise are worth nothing to uniform training (word-shuffled
text is worth something, and up to four repetitions nearly as much as new text, so S is
a bound and not a forecast); the oracle has target text enough, or its repetitions are
worth as much as new text; target text is worth 1 for both whatever is known already.
After S = 1 / (q + w o) of notes on data selection: shares by construction.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

TRANSFERS = (0.0, 0.1, 0.2)
SEEN = (0.0, 0.25, 0.5, 1.0)
BUDGETS = (500_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000)


class Text(NamedTuple):
    """A clean text of a pool: bytes of one copy, and how often it stands there."""

    size: float
    copies: int
    target: bool


def useful_share(
    texts: Sequence[Text], pool: int, target: bool, seen: float = 1.0
) -> float:
    """q (target) or o (near) after the fraction `seen` (0 to 1) of `pool` bytes."""
    chosen = [text for text in texts if text.target == target]
    if not seen:
        return sum(text.size * text.copies for text in chosen) / pool
    met = (text.size * (1 - (1 - seen) ** text.copies) for text in chosen)
    return sum(met) / (seen * pool)


def ceiling(
    texts: Sequence[Text], pool: int, transfer: float, seen: float = 1.0
) -> float:
    """S(f, w) with f = `seen` and w = `transfer`."""
    q = useful_share(texts, pool, True, seen)
    return 1 / (q + transfer * useful_share(texts, pool, False, seen))


def passes(texts: Sequence[Text], budget: float) -> float:
    """How often `budget` bytes of training go over the different target texts."""
    return budget / sum(text.size for text in texts if text.target)


def ceilings(texts: Sequence[Text], size: int) -> list[dict[str, float]]:
    """S(f, w) of `uets_jax.data.ceiling`; `seen` 1 is the headline."""
    return [
        {
            "seen": seen,
            "transfer": transfer,
            "target_share": round(useful_share(texts, size, True, seen), 4),
            "near_share": round(useful_share(texts, size, False, seen), 4),
            "token_factor": round(ceiling(texts, size, transfer, seen), 3),
        }
        for seen in SEEN
        for transfer in TRANSFERS
    ]


def budgets(texts: Sequence[Text], size: int, per_token: float) -> list[dict[str, Any]]:
    """How often a budget of trained tokens goes over the pool, and over target text."""
    return [
        {
            "tokens": tokens,
            "pool_passes": round(tokens * per_token / size, 3),
            "target_text_passes": round(passes(texts, tokens * per_token), 3),
        }
        for tokens in BUDGETS
    ]
