"""Log-ratios against a dense dictionary; rows, documents, padding, compilation."""

import math
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.measure.jaxpr import count as ledger
from uets_jax.selection.lexical import (
    LexicalConfig,
    LexicalState,
    count,
    fit,
    lex_score,
    lex_terms,
    operations,
    score_documents,
)

CONFIG = LexicalConfig(buckets=1 << 22)  # hardly a collision among a few hundred


def texts(count: int, low: int, high: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(low, high, rng.integers(5, 30)) for _ in range(count)]


compiled = jax.jit(lambda s, i, m: lex_score(s, i, m, CONFIG))
TARGET, POOL = texts(6, 0, 12, 0), [*texts(20, 0, 20, 1), *texts(20, 8, 20, 2)]


def grams(ids: np.ndarray) -> list[tuple]:
    """All n-grams of one text, of orders 1, 2, 3."""
    ids = ids.tolist()
    return [tuple(ids[i : i + n]) for n in (1, 2, 3) for i in range(len(ids) - n + 1)]


def dense_scores(documents: list[np.ndarray], kappa: float) -> list[float]:
    """Mean log-ratios from dictionaries of n-grams."""
    seen = Counter(g for text in TARGET for g in grams(text))
    pool = Counter(g for text in POOL for g in grams(text))
    share = seen.total() / pool.total()
    ratio = lambda g: math.log((seen[g] + kappa) / (pool[g] * share + kappa))
    return [sum(map(ratio, grams(d))) / max(len(grams(d)), 1) for d in documents]


def rows(documents: list[np.ndarray], length: int, fill: int = 0):
    mask = np.arange(length)[None] < np.array([len(d) for d in documents])[:, None]
    ids = np.full(mask.shape, fill)
    ids[mask] = np.concatenate(documents)
    return jnp.asarray(ids, jnp.int32), jnp.asarray(mask)


def test_scores_are_those_of_dictionaries():
    state = fit(TARGET, POOL, CONFIG)
    scores = score_documents(state, POOL, CONFIG)
    np.testing.assert_allclose(scores, dense_scores(POOL, 0.3), rtol=1e-4, atol=1e-5)
    assert scores[:20].mean() > scores[20:].mean() + 0.1


def test_rows_score_as_documents_whatever_the_padding():
    state = fit(TARGET, POOL, CONFIG)
    expected = score_documents(state, POOL, CONFIG)
    for length, fill in ((30, 0), (41, 7)):
        ids, mask = rows(POOL, length, fill)
        scores = compiled(state, ids, mask)
        np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)
    plain = lex_score(state, ids, mask, CONFIG)
    np.testing.assert_allclose(scores, plain, rtol=1e-6, atol=1e-6)


def test_a_hole_in_the_mask_cuts_a_row_in_two():
    state = fit(TARGET, POOL, CONFIG)
    ids = jnp.asarray([[1, 2, 3, 99, 4, 5, 6]], jnp.int32)
    parts = [np.array([1, 2, 3]), np.array([4, 5, 6])]
    expected = score_documents(state, parts, CONFIG).mean()
    assert compiled(state, ids, ids != 99)[0] == pytest.approx(expected)


def test_terms_add_up_to_the_score():
    state = fit(TARGET, POOL, CONFIG)
    ids, mask = rows(POOL, 41, 7)
    terms = lambda i, t: lex_terms(state, i, t, CONFIG)
    total, number = jax.jit(terms)(ids, jnp.where(mask, 3, -1))
    assert total.shape == number.shape == ids.shape
    assert number.sum(1).tolist() == [len(grams(text)) for text in POOL]
    expected = score_documents(state, POOL, CONFIG)
    np.testing.assert_allclose(total.sum(1) / number.sum(1), expected, rtol=1e-5)
    assert not total[~mask].any()


def test_a_term_stands_where_its_ngrams_begin_and_none_spans_two_texts():
    state = fit(TARGET, POOL, CONFIG)
    rng = np.random.default_rng(3)
    row = rng.integers(0, 20, 24)
    texts = np.repeat([0, 1, 2, 5], [6, 2, 1, 15])
    total, number = lex_terms(
        state, jnp.asarray(row[None], jnp.int32), jnp.asarray(texts[None]), CONFIG
    )
    ratio = lambda gram: lex_terms(
        state, jnp.asarray([gram], jnp.int32), jnp.zeros((1, len(gram)), int), CONFIG
    )[0][0]
    for place in range(24):
        own = row[place:][texts[place:] == texts[place]]
        assert number[0, place] == min(3, len(own))
        alone = ratio(own[:3].tolist())[0]  # of one, two and three tokens
        np.testing.assert_allclose(total[0, place], alone, rtol=1e-5, atol=1e-6)


def test_what_nobody_has_seen_is_neutral_and_so_is_too_little_text():
    state = fit(TARGET, POOL, CONFIG)
    unseen = [np.array([500, 501, 502, 503]), np.zeros(0, int)]
    assert score_documents(state, unseen, CONFIG).tolist() == [0.0, 0.0]
    ids, mask = rows(unseen, 4)
    assert compiled(state, ids, mask).tolist() == [0.0, 0.0]
    assert jnp.isfinite(compiled(state, ids[:, :1], mask[:, :1])).all()


def test_more_smoothing_is_less_difference():
    spread = [
        float(jnp.abs(fit(TARGET, POOL, LexicalConfig(smoothing=k)).logratio).sum())
        for k in (0.1, 1.0, 10.0)
    ]
    assert spread == sorted(spread, reverse=True)


def test_equal_text_has_no_difference():
    state = fit(POOL, [*POOL, *POOL], CONFIG)
    np.testing.assert_allclose(state.logratio, 0, atol=1e-6)


def test_counts_are_bounded_and_complete():
    small = LexicalConfig(buckets=64)
    counted = count(iter(POOL), small)
    assert counted.shape == (64,)
    assert counted.sum() == sum(len(grams(text)) for text in POOL)


def test_operations_are_about_what_the_ledger_counts():
    config, state = LexicalConfig(), LexicalState(jnp.zeros(1 << 18))
    ids, mask = jnp.zeros((4, 512), jnp.int32), jnp.ones((4, 512), bool)
    jaxpr = jax.make_jaxpr(lambda i, m: lex_score(state, i, m, config))(ids, mask)
    total = sum(cost.total for cost in ledger(jaxpr).total().values())
    table = 5 * config.buckets
    assert abs(total / (operations(0, 4 * 512, config) - table) - 1) < 0.03
    assert operations(10, 0, config) < operations(0, 10, config)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"orders": ()}, r"lexical\.orders: give one or more"),
        ({"orders": (0, 1)}, r"lexical\.orders: give one or more"),
        ({"buckets": 1000}, r"lexical\.buckets: must be a power of two"),
        ({"smoothing": 0.0}, r"lexical\.smoothing: must be above 0"),
        ({"smoothing": float("nan")}, r"lexical\.smoothing: must be above 0"),
    ],
)
def test_numbers_out_of_range_are_refused(change, complaint):
    with pytest.raises(UserError, match=complaint):
        LexicalConfig(**change)


def test_an_empty_sample_is_refused():
    with pytest.raises(UserError, match="the target holds no n-gram"):
        fit([], POOL, CONFIG)
    with pytest.raises(UserError, match="the pool holds no n-gram"):
        fit(TARGET, [np.zeros(0, int)], CONFIG)
