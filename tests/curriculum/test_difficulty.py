"""Seven measures against their definitions; host and compiled forms; quantiles."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.curriculum import difficulty
from uets_jax.curriculum.difficulty import assess, rank_among, ranks, running_ranks
from uets_jax.curriculum.ngrams import fit_ngrams, log_unigram, surprisal
from uets_jax.data.windows import cut, window_count
from uets_jax.errors import UserError
from uets_jax.types import IGNORED, Batch

VOCAB, EOT, L = 32, 0, 16
RNG = np.random.default_rng(0)
SPLIT = RNG.choice(VOCAB, 300, p=RNG.dirichlet(np.ones(VOCAB))).astype(np.int32)
TABLE = fit_ngrams(SPLIT, VOCAB, EOT, 1 << 12)
HOST = cut(SPLIT, EOT, L, np.arange(window_count(len(SPLIT), L)))  # the last is padded
DEVICE = Batch(*map(jnp.asarray, HOST))
KNOWN = HOST.targets != IGNORED


def mean_of_known(values):
    return np.array([v[k].mean() for v, k in zip(values, KNOWN, strict=True)])


def test_rarity_is_the_mean_surprisal_under_the_unigram():
    expected = mean_of_known(-np.asarray(log_unigram(TABLE))[HOST.tokens])
    np.testing.assert_allclose(difficulty.rarity(TABLE, HOST), expected, rtol=1e-5)


def test_ngram_surprisal_is_the_mean_over_known_places():
    values = np.asarray(surprisal(TABLE, HOST.tokens, HOST.segments))
    found = difficulty.ngram_surprisal(TABLE, HOST)
    np.testing.assert_allclose(found, mean_of_known(values), rtol=1e-5)


def test_length_is_the_mean_size_of_the_documents_in_a_row():
    sizes = [
        [((s == s[i]) & k).sum() for i in range(L)]
        for s, k in zip(HOST.segments, KNOWN, strict=True)
    ]
    expected = mean_of_known(np.array(sizes))
    np.testing.assert_allclose(difficulty.length(HOST), expected, rtol=1e-5)


def test_length_of_sentences_counts_up_to_and_with_the_mark():
    ends = np.zeros(VOCAB, bool)
    ends[7] = True
    tokens = np.array([[1, 7, 2, 3, 4, 7, 5, 6]], np.int32)
    row = Batch(tokens, tokens, np.zeros(1, np.int32), np.zeros((1, 8), np.int32))
    expected = (2 * 2 + 4 * 4 + 2 * 2) / 8
    np.testing.assert_allclose(difficulty.length(row, ends), [expected])


def test_document_lengths_see_beyond_the_row():
    text = np.array([0, 1, 1, 1, 1, 0, 2, 0, 3, 3, 3], np.int32)
    found = difficulty.document_lengths(text, 0, 4)
    np.testing.assert_allclose(found, [5, (5 + 2 + 2 + 4) / 4, 4])


@pytest.mark.parametrize("name", ["rarity", "ngram_surprisal", "length"])
def test_host_and_compiled_forms_agree(name):
    args = () if name == "length" else (TABLE,)
    one = getattr(difficulty, name)
    found = jax.jit(lambda batch: one(*args, batch))(DEVICE)
    np.testing.assert_allclose(found, assess(name, [HOST], TABLE), rtol=1e-5)


def test_compression_is_the_ratio_of_zlib():
    pieces = [bytes([65 + i]) * (1 + i % 3) for i in range(VOCAB)]
    text = b"".join(pieces[i] for i in HOST.tokens[3])
    found = difficulty.compression(HOST, pieces)
    assert found[3] == pytest.approx(len(zlib.compress(text, 6)) / len(text))


def test_repetition_is_easy_and_noise_is_hard_to_compress():
    tokens = RNG.integers(0, 60000, (2, 256)).astype(np.int32)
    tokens[0] = np.tile(tokens[0, :4], 64)
    zeros = np.zeros_like(tokens)
    easy, hard = difficulty.compression(Batch(tokens, tokens, zeros[:, 0], zeros))
    assert easy < 0.2 < 0.9 < hard


def test_loss_and_entropy_are_means_over_targets():
    values = RNG.uniform(1, 2, HOST.tokens.shape).astype(np.float32)
    for measure in (difficulty.loss, difficulty.entropy):
        found = jax.jit(measure)(jnp.asarray(values), DEVICE)
        np.testing.assert_allclose(found, mean_of_known(values), rtol=1e-5)


def test_progress_is_minus_the_drop_of_the_bin():
    found = difficulty.progress(jnp.array([0.5, -0.25]), jnp.array([1, 0, 0]))
    np.testing.assert_array_equal(found, [0.25, -0.5, -0.5])


def test_a_row_of_padding_has_difficulty_zero():
    empty = DEVICE._replace(targets=jnp.full_like(DEVICE.targets, IGNORED))
    assert not np.asarray(difficulty.ngram_surprisal(TABLE, empty)).any()
    assert not np.asarray(difficulty.length(empty)).any()


def test_assess_reads_a_corpus_in_parts():
    halves = [Batch(*(x[:9] for x in HOST)), Batch(*(x[9:] for x in HOST))]
    for name in ("rarity", "ngram_surprisal", "compression", "length"):
        whole, parts = assess(name, [HOST], TABLE), assess(name, halves, TABLE)
        np.testing.assert_allclose(whole, parts, rtol=1e-6)
        assert whole.dtype == np.float32


def test_assess_names_what_it_cannot_measure():
    with pytest.raises(UserError, match="rarity"):
        assess("rarety", [HOST], TABLE)
    with pytest.raises(UserError, match="fit_ngrams"):
        assess("rarity", [HOST])


def test_there_are_seven_measures_and_all_exist():
    assert len(set(difficulty.METRICS)) == 7
    assert all(callable(getattr(difficulty, name)) for name in difficulty.METRICS)


def test_ranks_are_quantiles_and_ties_share_theirs():
    np.testing.assert_allclose(
        ranks(np.array([30.0, 10, 20, 40, 50])) * 4, [2, 0, 1, 3, 4]
    )
    np.testing.assert_allclose(ranks(np.array([1.0, 1, 0, 2])) * 3, [1.5, 1.5, 0, 3])
    np.testing.assert_array_equal(ranks(np.array([7.0])), [0])


def test_running_ranks_equal_ranks_while_all_fit():
    part, values = running_ranks(64), RNG.normal(size=(3, 8)).astype(np.float32)
    values[2, :3] = values[0, :3]  # ties
    state = part.init({})
    for i, new in enumerate(values):
        found, state = jax.jit(part.apply)(state, jnp.asarray(new))
        expected = ranks(values[: i + 1].ravel())[-8:]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_running_ranks_follow_a_drift_and_forget():
    part = running_ranks(32)
    _, state = part.apply(part.init({}), jnp.linspace(0.0, 1.0, 32))
    _, state = part.apply(state, jnp.linspace(10.0, 11.0, 32))
    found = rank_among(state, jnp.array([0.5, 10.5, 99.0]))
    np.testing.assert_allclose(found, [0.0, 0.5, 1.0], atol=0.02)


def test_values_that_are_not_finite_rank_highest_and_do_not_count():
    part = running_ranks(16)
    first = jnp.array([1.0, jnp.nan, 3.0, jnp.inf])
    found, state = part.apply(part.init({}), first)
    np.testing.assert_array_equal(found, [0, 1, 1, 1])
    assert rank_among(state, jnp.array([2.0]))[0] == pytest.approx(0.5, abs=0.5)


def test_more_values_than_fit_are_an_error():
    part = running_ranks(4)
    with pytest.raises(UserError, match="5 values into 4"):
        part.apply(part.init({}), jnp.zeros(5))
