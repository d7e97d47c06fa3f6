"""Held-out documents in two halves: one to tune on, one to report."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from uets_jax.data.overlap import linked
from uets_jax.data.supply import Document


def halves(
    documents: Sequence[Document], limit: float
) -> tuple[list[Document], list[Document]]:
    """Two lists of about equal bytes, each in the given order, alike in their sources.

    Documents of one work stay together, and so do those that share more than `limit`
    of their word 13-grams. Groups are dealt out source by source, the largest first, to
    the half that has less of this source.
    """
    groups = _groups(documents, limit)
    sizes = [sum(len(d.text.encode()) for _, d in members) for members in groups]
    source = [members[0][1].source for members in groups]
    order = sorted(range(len(groups)), key=lambda i: (source[i], -sizes[i], i))
    bytes_of: list[Counter[str]] = [Counter(), Counter()]
    sides: list[list[tuple[int, Document]]] = [[], []]
    for i in order:
        full = lambda side, i=i: (bytes_of[side][source[i]], bytes_of[side].total())
        side = min((0, 1), key=full)
        bytes_of[side][source[i]] += sizes[i]
        sides[side] += groups[i]
    a, b = ([document for _, document in sorted(side)] for side in sides)
    return a, b


def _groups(
    documents: Sequence[Document], limit: float
) -> list[list[tuple[int, Document]]]:
    """Documents with their places, by works that share text."""
    links = linked([document.text for document in documents], limit)
    names = {}
    for link, document in zip(links, documents, strict=True):
        if document.work:
            names.setdefault(document.work, link)
    merged = {link: link for link in links}
    for link, document in zip(links, documents, strict=True):
        if document.work:
            old, new = merged[link], merged[names[document.work]]
            merged = {k: new if v == old else v for k, v in merged.items()}
    found = defaultdict(list)
    for place, document in enumerate(documents):
        found[merged[links[place]]].append((place, document))
    return list(found.values())
