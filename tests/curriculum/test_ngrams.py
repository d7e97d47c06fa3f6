"""Counts and surprisal against dictionaries; NumPy, JAX and compiled agree."""

import math
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.curriculum import ngrams
from uets_jax.curriculum.ngrams import (
    bucket_of,
    fit_ngrams,
    log_unigram,
    surprisal,
)
from uets_jax.errors import UserError

VOCAB, EOT, BUCKETS = 12, 0, 1 << 20  # hardly a collision among a few hundred
SPLIT = np.random.default_rng(0).integers(0, VOCAB, 600).astype(np.uint16)
ROWS = np.random.default_rng(1).integers(0, VOCAB, (5, 16)).astype(np.int32)
SEGMENTS = np.cumsum(ROWS == EOT, 1, dtype=np.int32)
SEGMENTS -= SEGMENTS[:, :1]


def documents(tokens) -> list[list[int]]:
    """Cut before every EOT."""
    found: list[list[int]] = [[]]
    for token in tokens.tolist():
        if token == EOT:
            found.append([])
        found[-1].append(token)
    return found


def grams(order: int) -> Counter:
    return Counter(
        tuple(text[i : i + order])
        for text in documents(SPLIT)
        for i in range(len(text) - order + 1)
    )


def by_hand(row: np.ndarray, k: float) -> list[float]:
    """Surprisal by dictionaries, one document of a row after the other."""
    one, two, three = grams(1), grams(2), grams(3)
    out = []
    for text in documents(row):
        for i, w in enumerate(text):
            p = (one[(w,)] + 1) / (one.total() + VOCAB)
            if i > 0:
                p = (two[(text[i - 1], w)] + k * p) / (one[(text[i - 1],)] + k)
            if i > 1:
                c = (text[i - 2], text[i - 1])
                p = (three[(*c, w)] + k * p) / (two[c] + k)
            out.append(-math.log(p))
    return out


@pytest.mark.parametrize("chunk", [7, 1000])
def test_tables_hold_the_counts_of_dictionaries(chunk, monkeypatch):
    monkeypatch.setattr(ngrams, "CHUNK", chunk)
    table = fit_ngrams(SPLIT, VOCAB, EOT, BUCKETS)
    for order, counts in zip((1, 2, 3), table, strict=True):
        expected = grams(order)
        assert counts.sum() == expected.total()
        for gram, number in list(expected.items())[:40]:
            at = gram[0] if order == 1 else bucket_of(BUCKETS, *np.array(gram)[:, None])
            assert counts[at] == number


@pytest.mark.parametrize("k", [0.5, 2.0])
def test_surprisal_is_that_of_dictionaries(k):
    table = fit_ngrams(SPLIT, VOCAB, EOT, BUCKETS)
    found = surprisal(table, ROWS, SEGMENTS, k)
    expected = [by_hand(row, k) for row in ROWS]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_host_and_compiled_surprisal_agree():
    table = fit_ngrams(SPLIT, VOCAB, EOT, 64)  # many collisions
    host = surprisal(jax.tree.map(np.asarray, table), ROWS, SEGMENTS)
    compiled = jax.jit(surprisal)(table, jnp.asarray(ROWS), jnp.asarray(SEGMENTS))
    assert isinstance(host, np.ndarray)
    np.testing.assert_allclose(host, compiled, rtol=1e-5, atol=1e-6)
    assert host.min() >= 0


def test_unigrams_are_a_distribution_and_unseen_tokens_have_some_of_it():
    table = fit_ngrams(np.full(50, 3), VOCAB, EOT, 64)
    p = np.exp(log_unigram(table))
    np.testing.assert_allclose(p.sum(), 1.0, rtol=1e-5)
    np.testing.assert_allclose(p[5], 1 / (50 + VOCAB), rtol=1e-5)


def test_a_context_that_was_never_seen_backs_off_to_the_shorter_one():
    table = fit_ngrams(np.array([0, 1, 2, 1, 2, 3]), 8, 0, BUCKETS)
    row = np.array([[5, 1, 2]], np.int32)
    pair = surprisal(table, row[:, 1:], np.zeros((1, 2), np.int32))
    triple = surprisal(table, row, np.zeros((1, 3), np.int32))
    np.testing.assert_allclose(triple[0, 2], pair[0, 1], rtol=1e-5)


def test_buckets_are_used_evenly():
    pairs = np.meshgrid(np.arange(256), np.arange(256))
    found = np.bincount(bucket_of(1024, *pairs).ravel(), minlength=1024)
    assert found.shape == (1024,)
    assert 20 < found.min() <= found.max() < 120  # mean 64


@pytest.mark.parametrize(
    ("tokens", "buckets", "named"),
    [([], 64, "no tokens"), ([1, 99], 64, "99"), ([1], 48, "power of two")],
)
def test_bad_input_is_named(tokens, buckets, named):
    with pytest.raises(UserError, match=named):
        fit_ngrams(np.array(tokens, np.int32), VOCAB, EOT, buckets)
