"""The recipe of a noisy pool: what it consists of, in shares of its bytes."""

import dataclasses
import math

from uets_jax.data.supply import SHORTEST
from uets_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Mixture:
    """What a pool consists of. Shares are of its UTF-8 bytes.

    target:           the domain whose held-out text is the yardstick.
    near:             domains of clean text that helps a little; each has as much of the
                      pool as of the corpus. By default all English prose: manuals,
                      specifications, statutes, questions and answers, novels. Code,
                      other languages and noisy web text are no neighbours.
    bytes:            of the pool.
    unique:           share of target text that stands there once.
    near_share:       share of near text that stands there once.
    duplicates:       share of text that stands there several times; of it
                      `duplicated_target` is target text, the rest near.
    noise:            share of noise; of it `word_shuffled` and `char_shuffled` are
                      clean text in disorder, the rest boilerplate.
    copies, exponent: a duplicated piece has k copies with probability ~ k^-exponent,
                      copies[0] <= k <= copies[1].
    edited:           share of the copies that are edited.
    edit_rate:        least and most share of words or characters that an edit changes.
    piece:            bytes of the longest piece: documents are cut between paragraphs
                      where they can, so that there are many duplicates of many sizes.
    sample_bytes:     target text outside of the pool, for statistics.
    overlap:          a document is dropped if any of its pieces has more than this
                      share of its word 13-grams in held-out text.
    repetition:       and if more than this share is in clean text of a better rank.
    """

    target: str = "encyclopedic"
    near: tuple[str, ...] = (
        *("techdocs", "standards", "legal"),
        *("qa_dialogue", "fiction"),
    )
    bytes: int = 22_000_000
    unique: float = 0.10
    near_share: float = 0.25
    duplicates: float = 0.30
    noise: float = 0.35
    duplicated_target: float = 0.5
    copies: tuple[int, int] = (2, 50)
    exponent: float = 2.0
    edited: float = 0.5
    edit_rate: tuple[float, float] = (0.02, 0.05)
    word_shuffled: float = 0.5
    char_shuffled: float = 0.25
    piece: int = 4096
    sample_bytes: int = 100_000
    overlap: float = 0.1
    repetition: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises UserError for a composition that can't be."""
        shares = (self.unique, self.near_share, self.duplicates, self.noise)
        if min(shares) < 0 or not math.isclose(sum(shares), 1, abs_tol=1e-9):
            raise UserError(f"mixture: the shares {shares} don't add up to 1")
        parts = ("duplicated_target", "edited", "overlap", "repetition")
        for name in (*parts, "word_shuffled", "char_shuffled"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"mixture: {name} is not between 0 and 1")
        if self.word_shuffled + self.char_shuffled > 1:
            raise UserError("mixture: word_shuffled + char_shuffled is more than 1")
        if len(self.copies) != 2 or not 2 <= self.copies[0] <= self.copies[1]:
            raise UserError(f"mixture: copies {self.copies}: give 2 <= least <= most")
        rate = self.edit_rate
        if len(rate) != 2 or not 0 < rate[0] <= rate[1] <= 1:
            raise UserError(f"mixture: edit_rate {rate}: give 0 < least <= most <= 1")
        if self.piece < 2 * SHORTEST or self.bytes < 10 * self.piece:
            raise UserError(
                f"mixture: {self.bytes} bytes in pieces of {self.piece}: give "
                f"pieces of {2 * SHORTEST} or more and ten times that for the pool"
            )
        if self.target in self.near or not all(self.near):
            raise UserError("mixture: give near domains, and not the target as one")
        if not self.unique + self.duplicates * self.duplicated_target:
            raise UserError("mixture: there is no target text; raise `unique`")
        if self.sample_bytes < 0 or self.seed < 0:
            raise UserError("mixture: sample_bytes and seed are 0 or more")

    @property
    def target_part(self) -> float:
        """Target text in clean text, hence in shuffled text: a topic tells no kind."""
        clean = self.unique + self.near_share + self.duplicates
        return (self.unique + self.duplicates * self.duplicated_target) / clean

    @property
    def needs(self) -> tuple[float, float]:
        """The most bytes of target and of near documents that a pool can use up."""
        doubled = self.bytes * self.duplicates / self.copies[0]
        mixed = self.bytes * self.noise * (self.word_shuffled + self.char_shuffled)
        target = self.bytes * self.unique + doubled * self.duplicated_target
        near = self.bytes * self.near_share + doubled * (1 - self.duplicated_target)
        return (
            self.sample_bytes + target + mixed * self.target_part,
            near + mixed * (1 - self.target_part),
        )
