"""Scores of windows: those of their documents, as NumPy has them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.selection import blind, lexical, quality
from uets_jax.selection.natural import naturalness

EOT, VOCAB, LENGTH, RUN = 0, 30, 8, 4
SIZE = LENGTH * RUN
STARTS = np.ones(VOCAB, bool)


def chain(count: int, seed: int) -> list[np.ndarray]:
    """Texts, the separator in front, in which few tokens may follow each token."""
    rng = np.random.default_rng(seed)
    after = np.random.default_rng(0).integers(1, VOCAB, (VOCAB, 3))
    texts = []
    for _ in range(count):
        text = [EOT, int(rng.integers(1, VOCAB))]
        while len(text) < rng.integers(9, 30):
            text.append(int(after[text[-1], rng.integers(3)]))
        texts.append(np.array(text))
    return texts


POOL = chain(80, 1)
LEXICAL = lexical.fit(POOL[:20], POOL)
BLIND = blind.fit_blind(POOL, STARTS)
TYPICAL = jnp.float32(0.8)
likeness = jax.jit(functools.partial(quality.likeness, run=RUN))
order = jax.jit(functools.partial(quality.order, run=RUN))


def packed(pieces: list[list[np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and documents [pieces, SIZE] of texts that lie in a piece each."""
    tokens, texts = np.zeros((2, len(pieces), SIZE), np.int32)
    for i, parts in enumerate(pieces):
        row = np.concatenate(parts)
        assert len(row) <= SIZE
        owner = np.repeat(np.arange(len(parts)), [len(p) for p in parts])
        filler = np.full(SIZE - len(row), 7)  # belongs to the last document
        tokens[i] = np.concatenate([row, filler])
        texts[i] = np.concatenate([owner, np.full(len(filler), len(parts) - 1)])
    return tokens, texts


def some_pieces() -> tuple[np.ndarray, list[list[np.ndarray]]]:
    """Pieces of two to four documents, and the documents with their filling."""
    texts, pieces = iter(POOL), []
    for _ in range(12):
        parts = [next(texts)[:SIZE]]
        while len(parts) < 4 and sum(map(len, parts)) < SIZE - 12:
            parts.append(next(texts)[: SIZE - sum(map(len, parts))])
        pieces.append(parts)
    tokens, owners = packed(pieces)
    whole = [
        [row[own == n] for n in range(own.max() + 1)]
        for row, own in zip(tokens, owners, strict=True)
    ]
    return tokens, whole


def by_window(documents: list[list[np.ndarray]], score) -> np.ndarray:
    """Each window's mean, over its tokens, of its documents' scores."""
    each = [
        np.concatenate([np.full(len(d), score(d)) for d in parts])
        for parts in documents
    ]
    return np.stack(each).reshape(-1, LENGTH).mean(1)


def test_likeness_is_that_of_the_documents():
    tokens, documents = some_pieces()
    assert max(len(parts) for parts in documents) > 1
    found = likeness(LEXICAL, tokens.reshape(-1, LENGTH), jnp.int32(EOT))
    score = lambda text: lexical.score_documents(LEXICAL, [text])[0]
    expected = by_window(documents, score)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_order_is_the_naturalness_of_the_documents():
    tokens, documents = some_pieces()
    found = order(BLIND, TYPICAL, tokens.reshape(-1, LENGTH), jnp.int32(EOT))

    def score(text: np.ndarray) -> float:
        ids = jnp.asarray(text[None], jnp.int32)
        gains, used = blind.order_terms(BLIND, ids, jnp.zeros_like(ids))
        gain = np.asarray(gains).sum() / max(int(used.sum()), 1)
        return float(naturalness(np.float32(gain), 0.8))

    expected = by_window(documents, score)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_order_follows_whole_documents_of_the_pool():
    long = [np.concatenate([p, p[1:]])[: SIZE - 1] for p in chain(60, 3)]
    texts = [np.append(EOT, p[1:]) for p in long if len(p) > 20]
    texts = [np.resize(t, SIZE) * (np.arange(SIZE) > 0) for t in texts]
    state = blind.fit_blind([*POOL, *texts], STARTS)
    tokens = np.stack(texts).astype(np.int32).reshape(-1, LENGTH)
    found = order(state, TYPICAL, tokens, jnp.int32(EOT)).reshape(-1, RUN)[:, 0]
    whole = naturalness(blind.score_documents(state, texts), 0.8)
    rank = lambda x: np.asarray(x).argsort().argsort()
    assert np.corrcoef(rank(found), rank(whole))[0, 1] > 0.6


def test_windows_of_one_document_in_a_piece_share_its_score():
    long = np.concatenate([text[1:] for text in POOL])
    one = long[: 2 * SIZE].reshape(2, SIZE).astype(np.int32)
    for score in (
        likeness(LEXICAL, one.reshape(-1, LENGTH), jnp.int32(EOT)),
        order(BLIND, TYPICAL, one.reshape(-1, LENGTH), jnp.int32(EOT)),
    ):
        score = score.reshape(2, RUN)
        np.testing.assert_allclose(score, np.tile(score[:, :1], RUN), rtol=1e-5)
        assert score[0, 0] != score[1, 0]


def test_a_piece_does_not_depend_on_its_neighbours():
    tokens, _ = some_pieces()
    whole = likeness(LEXICAL, tokens.reshape(-1, LENGTH), jnp.int32(EOT))
    alone = likeness(LEXICAL, tokens[3].reshape(-1, LENGTH), jnp.int32(EOT))
    np.testing.assert_allclose(whole.reshape(-1, RUN)[3], alone, rtol=1e-5)


def test_a_separator_begins_its_document():
    tokens = jnp.asarray([[5, 6, EOT, 7, 8, EOT, EOT, 9]])
    texts = quality.texts_of(tokens, jnp.int32(EOT))
    assert texts.tolist() == [[0, 0, 1, 1, 1, 2, 3, 3]]


def test_what_follows_sixteen_documents_counts_as_one():
    tokens = np.full((1, 64), 5)
    tokens[0, ::2] = EOT  # 32 documents of two tokens
    texts = np.asarray(quality.texts_of(jnp.asarray(tokens), jnp.int32(EOT)))[0]
    own = [n for n in range(1, 15) for _ in (0, 1)]
    assert texts.tolist() == [*own, *[15] * 36]
    values = np.arange(64.0, dtype=np.float32)
    means = quality.document_means(
        jnp.asarray(values)[None], jnp.ones((1, 64)), jnp.asarray(texts)[None]
    )[0]
    expected = [values[texts == n].mean() for n in texts]
    np.testing.assert_allclose(means, expected, rtol=1e-6)


def test_means_are_of_what_was_counted_and_0_where_nothing_was():
    texts = jnp.asarray([[0, 0, 1, 1, 1, 2]])
    total = jnp.asarray([[3.0, 1.0, 6.0, 0.0, 0.0, 0.0]])
    number = jnp.asarray([[1.0, 1.0, 3.0, 0.0, 0.0, 0.0]])
    found = quality.document_means(total, number, texts)
    assert found.tolist() == [[2.0, 2.0, 2.0, 2.0, 2.0, 0.0]]


def test_text_without_words_is_unnatural_and_neutral():
    padding = jnp.full((RUN, LENGTH), EOT)
    assert (order(BLIND, TYPICAL, padding, jnp.int32(EOT)) < -5).all()
    unseen = jnp.full((RUN, LENGTH), 29)
    assert jnp.isfinite(likeness(LEXICAL, unseen, jnp.int32(EOT))).all()


@pytest.mark.parametrize("run", [1, 2])
def test_longer_pieces_are_shuffled_text_told_better(run):
    natural = np.stack([np.resize(p, SIZE) for p in chain(40, 8)]).astype(np.int32)
    rng = np.random.default_rng(9)
    shuffled = rng.permuted(natural, axis=1)

    def gap(pieces: int) -> float:
        """Standardised difference of the scores of the two kinds."""
        score = lambda t: np.asarray(
            quality.order(
                BLIND,
                TYPICAL,
                jnp.asarray(t.reshape(-1, LENGTH)),
                jnp.int32(-1),
                pieces,
            )
        )
        good, bad = score(natural), score(shuffled)
        return float((good.mean() - bad.mean()) / np.hypot(good.std(), bad.std()))

    assert gap(RUN) > gap(run)
    assert gap(RUN) > 0.5
