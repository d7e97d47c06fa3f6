import itertools
from collections import Counter

import numpy as np

from uets_jax.data.halves import halves
from uets_jax.data.supply import Document


def make_documents(sizes=(50, 90, 40, 70, 60, 80)):
    rng = np.random.default_rng(0)
    return [
        Document(
            f"{source}{i}", "d", " ".join(rng.choice(9999, size).astype(str)), source
        )
        for source in ("s", "t", "u")
        for i, size in enumerate(sizes)
    ]


def weigh(documents):
    counts = Counter()
    for document in documents:
        counts[document.source] += len(document.text)
    return counts


def test_every_document_is_on_one_side_and_in_order():
    documents = make_documents()
    a, b = halves(documents, 0.1)
    assert sorted([*a, *b]) == sorted(documents)
    assert [d for d in documents if d in a] == a
    assert [d for d in documents if d in b] == b


def test_the_sides_are_alike_in_each_source():
    one, other = map(weigh, halves(make_documents(), 0.1))
    for source in "stu":
        assert abs(one[source] - other[source]) <= 50 * 5
    assert abs(one.total() - other.total()) <= 50 * 5


def test_documents_that_share_text_stay_together():
    documents = make_documents()
    twin = documents[3]._replace(id="twin", text=documents[3].text + " and some more")
    a, b = halves([*documents, twin], 0.1)
    side = a if twin in a else b
    assert documents[3] in side


def test_documents_of_a_work_stay_together_and_so_do_linked_works():
    documents = make_documents()
    works = ["x", "y", "x", "", "y", "", "z", "z", *[""] * 10]
    named = [d._replace(work=w) for d, w in zip(documents, works, strict=True)]
    named.append(named[0]._replace(id="link", work="z"))
    a, b = halves(named, 0.1)
    sides = {
        d.work: {e.id in {f.id for f in a} for e in named if e.work == d.work}
        for d in named
        if d.work
    }
    assert {len(side) for side in sides.values()} == {1}
    assert sides["x"] == sides["z"]
    assert not set(itertools.chain(a)) & set(b)
