import re

import numpy as np
import pytest

from uets_jax.data.overlap import (
    Held,
    gram_hashes,
    linked,
    normalised_hash,
    repeated,
    word_hashes,
)


def sentence(name, count):
    return " ".join(f"{name}{i}" for i in range(count))


def brute_grams(text, length):
    words = re.findall(rb"[a-z0-9\x80-\xff]+", text.encode().lower())
    count = len(words) - length + 1
    return [tuple(words[i : i + length]) for i in range(count)] or [tuple(words)]


def test_equal_words_have_equal_hashes_and_others_others():
    text = "Straße, the THE other_the (the)x λόγος\n\tthe; 12 1 2"
    words = re.findall(rb"[a-z0-9\x80-\xff]+", text.encode().lower())
    hashes = word_hashes(text).tolist()
    assert len(hashes) == len(words)
    assert len(set(hashes)) == len(set(words))
    assert [hashes.index(h) for h in hashes] == [words.index(w) for w in words]


@pytest.mark.parametrize("text", ["", " \n", "...!"])
def test_a_text_without_words_has_no_grams(text):
    assert len(word_hashes(text)) == len(gram_hashes(text)) == 0
    assert Held([text]).share("some words") == 0
    assert Held(["some words"]).share(text) == 0
    assert repeated([text, text]).tolist() == [0, 0]
    assert linked([text, text], 0.1) == [0, 1]


def test_grams_equal_a_brute_force():
    length = 3
    rng = np.random.default_rng(0)
    text = " ".join(rng.choice(["a", "b", "cc", "d"], 300))
    hashes, grams = gram_hashes(text, length).tolist(), brute_grams(text, length)
    assert len(hashes) == len(grams)
    assert len(set(zip(hashes, grams, strict=True))) == len(set(hashes))
    assert len(set(hashes)) == len(set(grams))


def test_the_order_of_words_counts():
    assert len(set(gram_hashes("a b", 2)) & set(gram_hashes("b a", 2))) == 0
    assert normalised_hash("a b") != normalised_hash("b a")
    assert normalised_hash("A, b!") == normalised_hash("a b")


def test_the_share_of_held_out_grams_equals_a_brute_force():
    rng = np.random.default_rng(1)
    held = [" ".join(rng.choice(["x", "y", "z"], 40)) for _ in range(3)]
    text = " ".join(rng.choice(["x", "y", "z", "w"], 400))
    known = {g for h in held for g in brute_grams(h, 4)}
    grams = brute_grams(text, 4)
    found = Held(held, 4)
    assert found.share(text) == pytest.approx(np.mean([g in known for g in grams]))
    seen = known & set(grams)
    assert 0 < len(seen) < len(known)
    assert found.seen(["nothing at all", text]) == pytest.approx(len(seen) / len(known))


def test_a_held_out_text_is_known_in_other_dress():
    held = Held([sentence("a", 20)])
    assert held.equals(sentence("A", 20).replace(" ", ",\n"))
    assert not held.equals(sentence("a", 19))
    assert held.share(sentence("a", 19)) == 1


def test_the_first_text_is_not_a_repetition_but_the_second_is():
    texts = [sentence("a", 40), sentence("b", 40), sentence("a", 40)]
    assert repeated(texts).tolist() == [0, 0, 1]
    half = repeated([*texts, sentence("a", 26) + " " + sentence("c", 26)])
    assert half[3] == pytest.approx(14 / 40)


def test_a_text_does_not_repeat_itself():
    assert repeated(["a b c d " * 50]).tolist() == [0]


def test_texts_that_share_enough_are_linked_also_by_a_third_one():
    a, b, c = (sentence(name, 40) for name in "abc")
    texts = [a, c, b, f"{a} {b}", sentence("d", 40)]
    assert linked(texts, 0.1) == [0, 1, 0, 0, 4]
    assert linked([a, f"{b} {c} {sentence('a', 15)}"], 0.2) == [0, 1]
