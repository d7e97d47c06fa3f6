import collections
import re

import numpy as np
import pytest

from uets_jax.data.draws import Draws
from uets_jax.data.noise import EDITS, edit, shuffle_characters, shuffle_words

SPACE = re.compile(r"[ \t\n\r\f\v]+")
RATE = 0.04


def make_text(words=300):
    rng = np.random.default_rng(0)
    names = [f"{a}{b}{c}" for a in "bdk" for b in "aeiouäλ" for c in ("", "n", "st")]
    gaps = rng.choice([" ", "  ", "\n\n", "\t"], words, p=[0.9, 0.04, 0.03, 0.03])
    return "".join(
        map("".join, zip(rng.choice(names, words), gaps, strict=True))
    ).strip()


def distance(one, other):
    """Levenshtein, row by row."""
    row = np.arange(len(other) + 1)
    column = np.array([hash(unit) for unit in other])
    for i, unit in enumerate(one, 1):
        best = np.minimum(row[:-1] + (column != hash(unit)), row[1:] + 1)
        best = np.concatenate([[i], best])
        row = np.minimum.accumulate(best - np.arange(len(best))) + np.arange(len(best))
    return int(row[-1])


def units(text, kind):
    return list(text) if kind == "characters" else SPACE.split(text)


def test_the_distance_of_this_test_is_right():
    assert distance("kitten", "sitting") == 3
    assert distance("", "abc") == distance("abc", "") == 3


def test_shuffled_words_are_a_permutation_between_the_same_gaps():
    text = make_text()
    shuffled = shuffle_words(text, Draws("w"))
    before, after = SPACE.split(text), SPACE.split(shuffled)
    assert collections.Counter(before) == collections.Counter(after)
    assert SPACE.findall(text) == SPACE.findall(shuffled)
    assert np.mean([a == b for a, b in zip(before, after, strict=True)]) < 0.1


def test_shuffled_characters_are_a_permutation():
    text = make_text()
    shuffled = shuffle_characters(text, Draws("c"))
    assert collections.Counter(text) == collections.Counter(shuffled)
    assert len(text.encode()) == len(shuffled.encode())
    assert shuffled != text


@pytest.mark.parametrize("kind", EDITS)
@pytest.mark.parametrize("seed", range(4))
def test_an_edit_changes_as_much_as_it_should(kind, seed):
    text = make_text()
    changed = edit(text, kind, RATE, Draws(kind, seed))
    before, after = units(text, kind), units(changed, kind)
    share = distance(before, after) / len(before)
    assert 0.75 * RATE <= share <= RATE * 1.02


def test_a_passage_is_one_run_of_words():
    words = [f"w{i}" for i in range(200)]
    after = edit(" ".join(words), "passage", 0.05, Draws("p")).split(" ")
    different = [i for i in range(200) if after[i] != words[i]]
    assert len(after) == 200
    assert different == list(range(different[0], different[0] + 10))


def test_scattered_words_are_replaced_left_out_and_added():
    words = [f"w{i}" for i in range(1000)]
    after = edit(" ".join(words), "words", 0.05, Draws("s")).split(" ")
    counts = collections.Counter(after)
    lost = [w for w in words if w not in counts]
    assert 20 < len(lost) < 45  # replaced or left out: two thirds of 50
    assert 20 < sum(count - 1 for count in counts.values()) < 45
    assert "" not in after
    places = [words.index(word) for word in lost]
    assert max(places) - min(places) > 500


@pytest.mark.parametrize("kind", EDITS)
@pytest.mark.parametrize("text", ["one", "one one one", "x x", "a"])
def test_short_texts_are_edited_too(kind, text):
    found = {edit(text, kind, 0.02, Draws(kind, seed)) for seed in range(9)}
    assert found != {text}


def test_equal_draws_give_equal_text():
    text = make_text(50)
    for kind in EDITS:
        one, other = (edit(text, kind, RATE, Draws("same")) for _ in range(2))
        assert one == other
        assert one != edit(text, kind, RATE, Draws("other"))
