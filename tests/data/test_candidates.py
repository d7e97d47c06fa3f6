import numpy as np
import pytest

from uets_jax.data.candidates import Lowest, candidates
from uets_jax.data.composition import Mixture
from uets_jax.data.supply import Document
from uets_jax.errors import UserError

RECIPE = Mixture(target="t", near=("n",), bytes=20_000, piece=1000, sample_bytes=0)


def make_text(name, words=300):
    return " ".join(f"{name}{i}" for i in range(words))


def make_documents(domain, names):
    return [Document(f"{domain}-{name}", domain, make_text(name)) for name in names]


HELD = make_documents("t", ["held"])
CORPUS = [*make_documents("t", "abcdef"), *make_documents("n", "ghijkl")]


def origins(supply):
    return {piece.origin.partition("#")[0] for piece in supply.pieces()}


def found(documents, recipe=RECIPE):
    target, near, dropped = candidates(recipe, documents, HELD)
    return origins(target), origins(near), dropped


def test_documents_are_sorted_by_domain_and_others_left_out():
    other = make_documents("code", "xyz")
    target, near, dropped = found([*CORPUS, *other])
    assert target == {f"t-{name}" for name in "abcdef"}
    assert near == {f"n-{name}" for name in "ghijkl"}
    assert set(dropped.values()) == {0}


def test_a_held_out_text_is_dropped_from_either_domain():
    dress = make_text("held").upper().replace(" ", " - ")
    extra = [Document("t-1", "t", dress), Document("n-1", "n", make_text("held"))]
    target, near, dropped = found([*extra, *CORPUS])
    assert "t-1" not in target
    assert "n-1" not in near
    assert dropped["held_out_exact"] == 2


def test_a_document_is_dropped_if_a_piece_of_it_overlaps():
    passage = " ".join(f"held{i}" for i in range(50, 140))
    text = f"{make_text('q', 3000)} {passage} {make_text('r')}"
    target, _, dropped = found([Document("t-1", "t", text), *CORPUS])
    assert "t-1" not in target
    assert dropped["held_out_overlap"] == 1
    short = " ".join(f"held{i}" for i in range(50, 63))
    text = f"{make_text('q')} {short}"
    target, _, dropped = found([Document("t-1", "t", text), *CORPUS])
    assert "t-1" in target
    assert dropped["held_out_overlap"] == 0


def test_repetitions_within_the_corpus_are_dropped():
    copies = [
        Document("t-1", "t", make_text("a").title()),
        Document("n-1", "n", make_text("b")),
        Document("n-2", "n", make_text("c") + " " + make_text("s", 200)),
    ]
    target, near, dropped = found([*CORPUS, *copies])
    assert not {"t-1", "n-1", "n-2"} & (target | near)
    assert dropped["repeated_exact"] == 2
    assert dropped["repeated_near"] == 1


def test_the_order_of_use_is_random_but_not_the_order_of_the_files():
    def order(documents, seed):
        recipe = Mixture(
            target="t", near=("n",), bytes=20_000, piece=1000, sample_bytes=0, seed=seed
        )
        supply, _, _ = candidates(recipe, documents, HELD)
        return [piece.origin for piece in supply.pieces()]

    first = order(CORPUS, 0)
    assert first == order(CORPUS[::-1], 0)
    assert first != order(CORPUS, 1)
    assert sorted(first) == sorted(order(CORPUS, 1))


def test_what_is_missing_or_double_is_named():
    with pytest.raises(UserError, match="no document of n;"):
        found(CORPUS[:6])
    with pytest.raises(UserError, match="two documents have the id 't-a'"):
        found([*CORPUS, Document("t-a", "t", "something else")])


def test_the_lowest_ranks_are_kept_whatever_the_order():
    rng = np.random.default_rng(0)
    texts = ["x" * int(n) + str(i) for i, n in enumerate(rng.integers(50, 200, 60))]
    documents = [Document(str(i), "t", text) for i, text in enumerate(texts)]

    def kept(order, limit):
        lowest = Lowest(limit)
        for i in order:
            lowest.add(documents[i], 0)
        return lowest.documents()

    everything = kept(range(60), 1e9)
    some = kept(range(60), 2000.0)
    assert sorted(everything) == sorted(documents)
    assert some == everything[: len(some)] == kept(rng.permutation(60), 2000.0)
    sizes = [len(document.text) for document in some]
    assert sum(sizes[:-1]) <= 2000 < sum(sizes)
