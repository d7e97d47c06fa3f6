import json

import numpy as np
import pytest

from uets_jax.data.faults import BadDocument
from uets_jax.evaluate.items import Item, group_means, join, read_item, subset


def line(**fields) -> bytes:
    return json.dumps(fields).encode()


def test_a_pair_gives_nothing_and_belongs_to_groups():
    form, item = read_item(line(good="A b.", bad="B a.", uid="u", phenomenon="p", id=1))
    assert form == "pair"
    assert item == Item(
        (("", "A b."), ("", "B a.")), 0, {"uid": "u", "phenomenon": "p"}
    )


def test_a_cloze_has_one_option():
    assert read_item(line(context="so it", continuation="goes")) == (
        "cloze",
        Item((("so it", " goes"),), 0, {}),
    )


def test_context_options_score_the_same_text():
    both = ["Ann saw", "Bob saw"]
    form, item = read_item(line(context_options=both, continuation="it", gold=1))
    assert (form, item.gold) == ("options", 1)
    assert item.options == (("Ann saw", " it"), ("Bob saw", " it"))


def test_choices_follow_the_query():
    form, item = read_item(line(query="Why?", choices=["So.", "No.", "Ah."], gold=2))
    assert (form, item.gold) == ("choice", 2)
    assert item.options == (("Why?", " So."), ("Why?", " No."), ("Why?", " Ah."))


@pytest.mark.parametrize(
    ("given", "scored", "expected"),
    [
        ("the", "cat", " cat"),
        ("the ", "cat", "cat"),
        ("the\n", "cat", "cat"),
        ("the", " cat", " cat"),
        ("", "cat", "cat"),
        ("1+1=", "2", "2"),
        ("1+1 = ", "2", "2"),
    ],
)
def test_two_texts_are_joined_by_one_space(given, scored, expected):
    assert join(given, scored) == (given, expected)


WRONG = [
    (b"{broken", "broken JSON"),
    (b"[1, 2]", "no known form.*keys: none"),
    (b"\xff", "not UTF-8"),
    (line(good="a", worse="b"), "keys: 'good', 'worse'.*pair: good, bad; options"),
    (line(good="a", bad=3), "'bad' is a int"),
    (line(good="a", bad=""), "'bad' can't be used: empty"),
    (line(good="a", bad="x\ud800"), "'bad' can't be used: lone surrogate"),
    (line(context="a", continuation=""), "'continuation' can't be used: empty"),
    (line(query="a", choices=["b"], gold=0), "'choices' is not a list of two"),
    (line(query="a", choices="bc", gold=0), "'choices' is not a list of two"),
    (line(query="a", choices=["b", None], gold=0), "'choices' holds what is a None"),
    (line(query="a", choices=["b", "c"], gold=2), "'gold' is 2, not one of 2"),
    (line(query="a", choices=["b", "c"], gold=-1), "'gold' is -1"),
    (line(query="a", choices=["b", "c"], gold=True), "'gold' is True"),
    (line(query="a", choices=["b", "c"], gold="0"), "'gold' is '0'"),
    (line(context_options=["a"], continuation="b", gold=0), "'context_options'"),
]


@pytest.mark.parametrize(("raw", "culprit"), WRONG)
def test_a_line_that_is_no_question_says_why(raw, culprit):
    with pytest.raises(BadDocument, match=culprit):
        read_item(raw)


def test_an_empty_context_is_a_context():
    item = read_item(line(context="", continuation="Once"))[1]
    assert item.options == (("", "Once"),)


def numbered(counts: dict[str, int], kind: str = "uid") -> list[Item]:
    return [
        Item((("", f"{name}{i}"),), 0, {kind: name})
        for name, count in counts.items()
        for i in range(count)
    ]


def names(items: list[Item]) -> list[str]:
    return [item.options[0][1] for item in items]


@pytest.mark.parametrize("kind", ["uid", "phenomenon"])
def test_a_subset_is_evenly_spaced_in_every_group(kind):
    items = numbered({"a": 9, "b": 2, "c": 4}, kind)
    kept = names(subset(items, 3))
    assert kept == ["a0", "a3", "a6", "b0", "b1", "c0", "c1", "c2"]
    assert kept == names(subset(items, 3))


def test_a_subset_keeps_the_order_and_knows_no_limit():
    items = [Item((("", str(i)),), 0, {}) for i in range(10)]
    assert names(subset(items, 4)) == ["0", "2", "5", "7"]
    assert subset(items, 0) == items
    assert subset(items, 99) == items


def test_means_by_kind_and_name():
    items = [Item((), 0, {"uid": u, "phenomenon": "p"}) for u in ("b", "a", "b")]
    found = group_means([*items, Item((), 0, {})], np.array([1.0, 0.0, 0.0, 1.0]))
    assert found == {"uid": {"a": 0.0, "b": 0.5}, "phenomenon": {"p": 1 / 3}}
    assert [*found["uid"]] == ["a", "b"]
