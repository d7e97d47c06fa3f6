import pytest

from uets_jax.data.supply import SHORTEST, Document, Supply, pieces
from uets_jax.errors import UserError

PARAGRAPHS = "\n\n".join(f"{i} " + "word λ " * 40 for i in range(20))


def make_supply(count=10, size=1000):
    texts = ["".join(f"line {i} of {n}\n" for i in range(90)) for n in range(count)]
    documents = [Document(f"d{n}", "x", text) for n, text in enumerate(texts)]
    return Supply("domain 'x'", documents, size)


def test_a_document_is_cut_between_paragraphs():
    found = pieces(Document("d", "x", PARAGRAPHS), 1000)
    assert len(found) > 5
    assert all(SHORTEST <= piece.size <= 1000 for piece in found)
    assert [piece.origin for piece in found] == [f"d#{i}" for i in range(len(found))]
    joined = "\n\n".join(piece.text for piece in found)
    assert joined.split() == PARAGRAPHS.split()
    assert all(piece.text.split()[0].isdigit() for piece in found)
    assert {piece.domain for piece in found} == {"x"}


def test_a_short_document_is_one_piece_and_a_very_short_one_none():
    [piece] = pieces(Document("d", "x", "word " * 60), 1000)
    assert (piece.origin, piece.text) == ("d", ("word " * 60).strip())
    assert not pieces(Document("d", "x", "word"), 1000)


def test_a_size_is_counted_in_bytes():
    [piece] = pieces(Document("d", "x", "λ" * 100), 1000)
    assert piece.size == 200


def test_bytes_are_met_to_the_nearest_piece():
    for budget in (1500.0, 2700.0, 3100.0):
        taken = list(make_supply().take(budget, "tests"))
        assert abs(sum(piece.size for piece in taken) - budget) <= 500
    assert not list(make_supply().take(0.0, "nothing"))


def test_a_document_goes_to_one_use_only():
    supply = make_supply()
    uses = [
        {p.origin.partition("#")[0] for p in supply.take(1500.0, "tests")}
        for _ in range(4)
    ]
    assert all(uses)
    assert len(set().union(*uses)) == sum(map(len, uses))


def test_what_is_short_is_told():
    supply = make_supply(count=2)
    with pytest.raises(UserError) as caught:
        list(supply.take(10_000.0, "tests"))
    message = str(caught.value)
    assert "domain 'x'" in message
    assert "10,000 for tests" in message
    given = sum(piece.size for piece in make_supply(count=2).pieces())
    assert f"{10_000 - given:,} bytes short" in message
