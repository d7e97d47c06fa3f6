"""A noisy pool of known composition, from any labelled corpus.

Everything follows from the recipe and the documents: ranks, copies, edits and shuffles
are raw Philox bits keyed by hashes, so equal input gives equal bytes everywhere.

Order of work: the split by document is given; candidates that share word n-grams with
held-out text of the target domain are dropped; so are repetitions within the corpus;
then documents are dealt out whole, each to one kind, and there cut into pieces.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Literal, NamedTuple

from uets_jax.data import noise
from uets_jax.data.boilerplate import boilerplate
from uets_jax.data.candidates import candidates
from uets_jax.data.ceiling import Text
from uets_jax.data.composition import Mixture
from uets_jax.data.draws import Draws
from uets_jax.data.halves import halves
from uets_jax.data.supply import SHORTEST, Document, Piece, Supply
from uets_jax.errors import UserError

Kind = Literal[
    "unique", "near", "duplicate", "word_shuffled", "char_shuffled", "boilerplate"
]
KINDS: tuple[Kind, ...] = (
    "unique",
    "near",
    "duplicate",
    "word_shuffled",
    "char_shuffled",
    "boilerplate",
)


class Entry(NamedTuple):
    """A text of a pool and where it comes from; of all this, arms may see the text.

    domain: of the text that it was made of; empty for boilerplate.
    origin: that document, with `#n` for its n-th piece; equal for copies alone.
    edit:   what was edited, or nothing.
    """

    text: str
    kind: Kind
    domain: str
    origin: str
    edit: str = ""

    @property
    def size(self) -> int:
        """UTF-8 bytes."""
        return len(self.text.encode())


class Pool(NamedTuple):
    """What `mix` makes; `dropped` counts documents by reason."""

    entries: list[Entry]
    sample: list[Document]
    valid_a: list[Document]
    valid_b: list[Document]
    dropped: dict[str, int]


def mix(
    recipe: Mixture, documents: Iterable[Document], held_out: Iterable[Document]
) -> Pool:
    """Builds the pool; `documents` is read once, and some of it kept in memory.

    Raises:
      UserError: a domain that is missing, or with too little text.
    """
    held = [document for document in held_out if document.domain == recipe.target]
    if len(held) < 2:
        raise UserError(
            f"domain {recipe.target!r} has {len(held)} held-out documents; give two or "
            "more, or another --target"
        )
    target, near, dropped = candidates(recipe, documents, held)
    sample = [
        Document(piece.origin, piece.domain, piece.text)
        for piece in target.take(float(recipe.sample_bytes), "the sample")
    ]
    clean = [*_unique(recipe, target, near), *_duplicates(recipe, target, near)]
    entries = [*clean, *_shuffled(recipe, target, near)]
    entries += _boilerplate(recipe, [entry.size for entry in entries])
    order = Draws("order", recipe.seed).order(len(entries))
    parts = halves(held, recipe.overlap)
    return Pool([entries[i] for i in order], sample, *parts, dropped)


def composition(entries: Iterable[Entry]) -> dict[str, dict[str, int]]:
    """Documents and bytes of each kind."""
    documents, sizes = Counter(), Counter()
    for entry in entries:
        documents[entry.kind] += 1
        sizes[entry.kind] += entry.size
    return {k: {"documents": documents[k], "bytes": sizes[k]} for k in KINDS}


def clean_texts(entries: Iterable[Entry], target: str) -> list[Text]:
    """The different clean texts of a pool, for its ceiling."""
    copies, sizes, domains = Counter(), Counter(), {}
    for entry in entries:
        if entry.kind in ("unique", "near", "duplicate"):
            copies[entry.origin] += 1
            sizes[entry.origin] += entry.size
            domains[entry.origin] = entry.domain
    return [
        Text(sizes[origin] / count, count, domains[origin] == target)
        for origin, count in copies.items()
    ]


def _unique(recipe: Mixture, target: Supply, near: Supply) -> Iterator[Entry]:
    for piece in target.take(recipe.bytes * recipe.unique, "unique text"):
        yield _entry(piece, "unique", piece.text)
    for piece in near.take(recipe.bytes * recipe.near_share, "near text"):
        yield _entry(piece, "near", piece.text)


def _entry(piece: Piece, kind: Kind, text: str, edit: str = "") -> Entry:
    return Entry(text, kind, piece.domain, piece.origin, edit)


def _duplicates(recipe: Mixture, target: Supply, near: Supply) -> Iterator[Entry]:
    whole, part = recipe.bytes * recipe.duplicates, recipe.duplicated_target
    yield from _copied(recipe, target, whole * part)
    yield from _copied(recipe, near, whole * (1 - part))


def _copied(recipe: Mixture, supply: Supply, budget: float) -> Iterator[Entry]:
    """Pieces with their copies, `budget` bytes of them; the last has as many as fit."""
    left, least = budget, recipe.copies[0]
    for piece in supply.pieces():
        if left < piece.size * least / 2:
            return
        draws = Draws("copies", recipe.seed, piece.origin)
        fit = max(round(left / piece.size), least)
        for copy in _copies(recipe, piece, min(_count(recipe, draws), fit), draws):
            yield copy
            left -= copy.size
    if left > least * recipe.piece:
        raise supply.short(left, budget, "duplicates")


def _count(recipe: Mixture, draws: Draws) -> int:
    """Copies of a piece, after the power law, in whole numbers."""
    least, most = recipe.copies
    weights = [round(2**40 * k**-recipe.exponent) for k in range(least, most + 1)]
    place = draws.below(sum(weights))
    return least + sum(place >= bound for bound in accumulate(weights))


def _copies(recipe: Mixture, piece: Piece, count: int, draws: Draws) -> Iterator[Entry]:
    """The piece `count` times, the share `edited` of them with edits of their own."""
    edited = math.floor(count * recipe.edited + draws.fraction())
    for number in range(count):
        if number >= edited:
            yield _entry(piece, "duplicate", piece.text)
            continue
        kind, rate = draws.pick(noise.EDITS), draws.between(*recipe.edit_rate)
        text = noise.edit(piece.text, kind, rate, draws)
        yield _entry(piece, "duplicate", text, kind)


def _shuffled(recipe: Mixture, target: Supply, near: Supply) -> Iterator[Entry]:
    """As much of it made from target text as there is in the clean part of the pool."""
    kinds: tuple[tuple[Kind, float, Callable[[str, Draws], str]], ...] = (
        ("word_shuffled", recipe.word_shuffled, noise.shuffle_words),
        ("char_shuffled", recipe.char_shuffled, noise.shuffle_characters),
    )
    part = recipe.target_part
    for kind, share, shuffle in kinds:
        for supply, domain in ((target, part), (near, 1 - part)):
            budget = recipe.bytes * recipe.noise * share * domain
            for piece in supply.take(budget, f"{kind} text"):
                draws = Draws(kind, recipe.seed, piece.origin)
                yield _entry(piece, kind, shuffle(piece.text, draws))


def _boilerplate(recipe: Mixture, sizes: list[int]) -> Iterator[Entry]:
    """Documents as long as those of the rest of the pool."""
    share = 1 - recipe.word_shuffled - recipe.char_shuffled
    left, number = recipe.bytes * recipe.noise * share, 0
    while left > SHORTEST:
        draws = Draws("boilerplate", recipe.seed, number)
        text = boilerplate(min(draws.pick(sizes), math.ceil(left)), draws)
        yield Entry(text, "boilerplate", "", f"boilerplate-{number:05d}")
        left, number = left - len(text), number + 1
