"""Made-up rows of toy models whose next token is known; splices by hand; the bands."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.selection.synthesis import (
    SYNTHETIC,
    Bands,
    continuations,
    judge,
    recombinations,
)
from uets_jax.types import IGNORED, Batch

V, L, B = 8, 12, 6
ANY = (-np.inf, np.inf)
SURE = jnp.array(50.0)


def rows(seed=0) -> Batch:
    rng = np.random.default_rng(seed)
    text = jnp.asarray(rng.integers(0, V, (B, L + 1)), jnp.int32)
    starts = jnp.cumsum(text[:, :-1] == 0, 1, dtype=jnp.int32)
    ids = jnp.arange(B, dtype=jnp.int32)
    return Batch(text[:, :-1], text[:, 1:], ids, starts - starts[:, :1])


def bigram(table, tokens):
    """A model that looks at one token: logits [V, V] are its parameters."""
    return table[tokens]


def summing(scale, tokens):
    """A model of all that came before: the next token is the sum so far, mod V."""
    return scale * jax.nn.one_hot(jnp.cumsum(tokens, 1) % V, V)


def text_of(batch) -> np.ndarray:
    last = np.asarray(batch.targets[:, -1:])
    return np.concatenate([np.asarray(batch.tokens), last], 1)


@pytest.mark.parametrize("tokens", [1, 5, L - 1])
def test_prefixes_end_where_the_model_was_least_sure(tokens, key):
    batch, kept = rows(), L + 1 - tokens
    place = np.random.default_rng(1).integers(kept - 1, L, B)
    unsure = jnp.asarray(np.arange(L)[None] == place[:, None], jnp.float32)
    made = continuations(summing, SURE, batch, unsure, key, tokens)
    text = text_of(made)
    for b in range(B):
        source = np.asarray(batch.tokens[b])
        np.testing.assert_array_equal(
            text[b, :kept], source[place[b] - kept + 1 : place[b] + 1]
        )
        for t in range(kept, L + 1):  # by hand, one token after the other
            assert text[b, t] == text[b, :t].sum() % V


def test_continuations_are_batches_of_made_up_rows(key):
    batch = rows()
    made = jax.jit(continuations, static_argnums=(0, 5))(
        summing, SURE, batch, jnp.ones((B, L)), key, 4
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(batch, made)
    np.testing.assert_array_equal(made.ids, SYNTHETIC)
    np.testing.assert_array_equal(made.tokens[:, 1:], made.targets[:, :-1])
    np.testing.assert_array_equal(made.segments[:, 0], 0)


def test_a_sampled_separator_begins_a_segment(key):
    first, second = jax.random.split(key)
    to_zero = jnp.full((V, V), -50.0).at[:, 0].set(50.0)
    batch = rows()._replace(segments=jnp.zeros((B, L), jnp.int32))
    made = continuations(bigram, to_zero, batch, jnp.ones((B, L)), first, 3, eot=0)
    np.testing.assert_array_equal(made.segments[:, -3:], [[0, 1, 2]] * B)
    inside = continuations(bigram, to_zero, batch, jnp.ones((B, L)), second, 3)
    assert not np.asarray(inside.segments).any()


def test_places_without_a_target_are_not_continued(key):
    batch = rows()
    short = batch._replace(targets=batch.targets.at[:, 9:].set(IGNORED))
    unsure = jnp.broadcast_to(jnp.arange(L, dtype=jnp.float32), (B, L))
    made = continuations(summing, SURE, short, unsure, key, 5)
    np.testing.assert_array_equal(made.tokens[:, :8], batch.tokens[:, 1:9])


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_samples_have_the_temperature(temperature, key):
    table = jnp.asarray(np.random.default_rng(0).normal(size=(V, V)), jnp.float32)
    many = Batch(*(jnp.repeat(x[:1], 4000, 0) for x in rows()))
    made = continuations(
        bigram, table, many, jnp.ones((4000, L)), key, 1, jnp.float32(temperature)
    )
    expected = jax.nn.softmax(table[many.tokens[0, -1]] / temperature)
    found = np.bincount(made.targets[:, -1], minlength=V) / 4000
    np.testing.assert_allclose(found, expected, atol=0.03)


@pytest.mark.parametrize("tokens", [0, L])
def test_continuations_need_a_prefix_and_a_token(tokens, key):
    with pytest.raises(UserError, match="from 1 to 11"):
        continuations(summing, SURE, rows(), jnp.ones((B, L)), key, tokens)


def splice(one, two, middle_one, middle_two):
    return np.concatenate([one[:middle_one], two[middle_two:]])[: L + 1]


def test_halves_are_those_of_two_rows(key):
    batch = rows()
    made, text = recombinations(batch, key), text_of(batch)
    partners = []
    for b, row in enumerate(text_of(made)):
        found = [o for o in range(B) if (row == splice(text[b], text[o], 6, 6)).all()]
        assert found
        assert b not in found
        partners += found
    assert sorted(partners) == list(range(B))
    np.testing.assert_array_equal(made.ids, SYNTHETIC)


def test_rows_are_joined_where_a_sentence_ends(key):
    ends = jnp.zeros(V, bool).at[7].set(True)
    tokens = np.ones((2, L + 1), np.int32) * np.array([[1], [2]])
    tokens[0, 3] = tokens[1, 8] = 7
    tokens[1, 1] = 7  # further from the middle
    text = jnp.asarray(tokens)
    batch = Batch(text[:, :-1], text[:, 1:], jnp.arange(2), 0 * text[:, :-1])
    made = recombinations(batch, key, ends)
    expected = [splice(tokens[0], tokens[1], 4, 9), splice(tokens[1], tokens[0], 9, 4)]
    size = len(expected[0])
    found = np.concatenate([made.tokens[:, :1], made.targets], 1)
    np.testing.assert_array_equal(found[0, :size], expected[0])
    np.testing.assert_array_equal(found[0, size:], IGNORED)
    np.testing.assert_array_equal(found[1], expected[1])
    assert made.tokens.min() >= 0


def test_segments_rise_where_the_second_half_begins_a_document(key):
    text = jnp.asarray([[1] * 13, [2, 2, 0, 2, 2, 2, 0, 2, 2, 0, 2, 2, 2]])
    tokens = text[:, :-1]
    segments = jnp.cumsum(tokens == 0, 1, dtype=jnp.int32)
    made = recombinations(Batch(tokens, text[:, 1:], jnp.arange(2), segments), key)
    np.testing.assert_array_equal(made.segments[0], [0] * 6 + [1, 1, 1, 2, 2, 2])
    np.testing.assert_array_equal(made.segments[1], [0, 0] + [1] * 10)


def test_padding_stays_padding(key):
    batch = rows()
    short = batch._replace(targets=batch.targets.at[:, 9:].set(IGNORED))
    made = recombinations(short, key)
    np.testing.assert_array_equal(made.targets[:, 9:], IGNORED)
    assert (np.asarray(made.targets[:, :9]) != IGNORED).all()


def test_rows_are_accepted_by_the_mean_loss_and_entropy():
    table = jnp.asarray(3 * np.random.default_rng(0).normal(size=(V, V)), jnp.float32)
    batch = rows(seed=2)
    batch = batch._replace(targets=batch.targets.at[:, -1].set(IGNORED))
    p = np.asarray(jax.nn.softmax(table), np.float64)
    tokens, targets = (
        np.asarray(batch.tokens)[:, :-1],
        np.asarray(batch.targets)[:, :-1],
    )
    loss = -np.log(p[tokens, targets]).mean(1)
    entropy = -(p * np.log(p)).sum(1)[tokens].mean(1)
    loss_band = tuple(np.quantile(loss, [0.15, 0.9]).tolist())
    entropy_band = tuple(np.quantile(entropy, [0.1, 0.75]).tolist())
    found = judge(bigram, table, batch, Bands(loss_band, entropy_band))
    inside = (loss_band[0] <= loss) & (loss <= loss_band[1])
    inside &= (entropy_band[0] <= entropy) & (entropy <= entropy_band[1])
    assert 0 < inside.sum() < B
    np.testing.assert_array_equal(found.accepted, inside)
    kept = np.where(inside[:, None], batch.targets, IGNORED)
    np.testing.assert_array_equal(found.batch.targets, kept)
    assert found.metrics["synthetic_loss"] == pytest.approx(loss.mean(), rel=1e-5)
    assert found.metrics["synthetic_entropy"] == pytest.approx(entropy.mean(), rel=1e-4)
    assert found.metrics["synthetic_accepted"] == pytest.approx(inside.mean())


def test_a_row_of_padding_is_never_accepted():
    batch = rows()._replace(targets=jnp.full((B, L), IGNORED))
    found = judge(bigram, jnp.zeros((V, V)), batch, Bands(ANY, ANY))
    assert not np.asarray(found.accepted).any()


def test_bands_are_traced():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(bands):
        return judge(bigram, jnp.zeros((V, V)), rows(), bands)

    log_v = float(np.log(V))
    for high, share in ((log_v + 0.1, 1.0), (log_v - 0.1, 0.0)):
        bands = Bands((0.0, high), (0.0, 9.0))
        assert run(bands).metrics["synthetic_accepted"] == share
