"""Which documents of a corpus may stand in a pool, and in which order they are used."""

import heapq
from collections import Counter
from collections.abc import Iterable

from uets_jax.data.composition import Mixture
from uets_jax.data.overlap import Held, normalised_hash, repeated
from uets_jax.data.split import document_hash
from uets_jax.data.supply import Document, Supply, pieces
from uets_jax.errors import UserError

SPARE = 2  # times the text that is needed is kept in memory


def candidates(
    recipe: Mixture, documents: Iterable[Document], held: list[Document]
) -> tuple[Supply, Supply, dict[str, int]]:
    """Target and near text in random order, de-duplicated against `held` and itself.

    Also counts the documents that were dropped, by reason.

    Raises:
      UserError: a domain without a document, or an id that stands twice.
    """
    barred, seen = Held([document.text for document in held]), set()
    dropped = Counter({"held_out_exact": 0, "held_out_overlap": 0, "repeated_exact": 0})
    groups = [Lowest(SPARE * need) for need in recipe.needs]
    domains, ids = Counter(), set()
    for document in documents:
        if document.domain not in (recipe.target, *recipe.near):
            continue
        domains[document.domain] += 1
        _check_new(document.id, ids)
        same = normalised_hash(document.text)
        reason = "repeated_exact" if same in seen else _fault(recipe, barred, document)
        if reason:
            dropped[reason] += 1
            continue
        seen.add(same)
        groups[document.domain != recipe.target].add(document, recipe.seed)
    if missing := {recipe.target, *recipe.near} - domains.keys():
        raise UserError(
            f"the corpus has no document of {', '.join(sorted(missing))}; give other "
            "--target and --near"
        )
    target, near = (group.documents() for group in groups)
    again = repeated([d.text for d in (*target, *near)]) > recipe.repetition
    dropped["repeated_near"] = int(again.sum())
    kept = iter(again.tolist())
    target, near = ([d for d in g if not next(kept)] for g in (target, near))
    supplies = (
        Supply(f"target domain {recipe.target!r}", target, recipe.piece),
        Supply(f"near domains {', '.join(recipe.near)}", near, recipe.piece),
    )
    return *supplies, dict(dropped)


def _check_new(name: str, ids: set[str]) -> None:
    if name in ids:
        raise UserError(f"two documents have the id {name!r}; give each its own")
    ids.add(name)


def _fault(recipe: Mixture, barred: Held, document: Document) -> str:
    """Why a document may not be used: what it shares with held-out text."""
    if barred.equals(document.text):
        return "held_out_exact"
    share = max(
        (barred.share(p.text) for p in pieces(document, recipe.piece)), default=0.0
    )
    return "held_out_overlap" if share > recipe.overlap else ""


class Lowest:
    """The documents of the lowest ranks, `limit` bytes of them."""

    def __init__(self, limit: float) -> None:
        self._limit, self._size = limit, 0
        self._heap: list[tuple[int, str, Document, int]] = []

    def add(self, document: Document, seed: int) -> None:
        """Takes a document in, and drops those of the highest ranks beyond `limit`."""
        raw = document.text.encode()
        rank = document_hash(f"{seed}\0".encode() + raw)
        heapq.heappush(self._heap, (-rank, document.id, document, len(raw)))
        self._size += len(raw)
        while self._size - self._heap[0][3] > self._limit:
            self._size -= heapq.heappop(self._heap)[3]

    def documents(self) -> list[Document]:
        """By rank."""
        return [entry[2] for entry in sorted(self._heap, reverse=True)]
