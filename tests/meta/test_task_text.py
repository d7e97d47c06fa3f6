"""Sources of tokens: distinct instances, what a language is, held-out rows apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.meta import task_text


def text(seed, n=8192, vocab=40):
    return np.random.default_rng(seed).integers(0, vocab, n)


SOURCES = {
    "markov": lambda: task_text.markov(16),
    "words": lambda: task_text.words(16, 12),
    "echo": lambda: task_text.echo(16),
    "texts": lambda: task_text.texts({"a": text(0), "b": text(1)}),
}


@pytest.mark.parametrize("name", SOURCES)
def test_rows_are_tokens_and_as_many_distinct_ones_as_asked_for(name, raw):
    source = SOURCES[name]()
    draw = jax.jit(source.draw, static_argnums=(2, 3))
    one, two = (source.instance(jax.random.key(seed)) for seed in (1, 2))
    assert raw(one) != raw(two)
    rows = np.asarray(draw(one, jax.random.key(0), 8, 12, jnp.asarray(3)))
    assert rows.shape == (8, 12)
    assert rows.min() >= 0
    assert rows.max() < source.vocab
    np.testing.assert_array_equal(rows[3:6], rows[:3])
    assert len(np.unique(rows, axis=0)) == 3
    every = draw(one, jax.random.key(0), 8, 12, jnp.asarray(8))
    assert len(np.unique(every, axis=0)) == 8
    np.testing.assert_array_equal(every[:3], rows[:3])
    assert source.held(one, 12).shape == (16, 12)
    assert not np.array_equal(source.held(one, 12), source.held(two, 12))
    np.testing.assert_array_equal(source.held(one, 12), source.held(one, 12))


def test_held_rows_of_a_text_are_never_trained_on():
    ids = np.arange(8192)
    source = task_text.texts({"a": ids})
    instance = source.instance(jax.random.key(0))
    held = {int(i) for i in np.asarray(source.held(instance, 9)).ravel()}
    drawn = source.draw(instance, jax.random.key(1), 4096, 9, jnp.asarray(4096))
    drawn = set(np.asarray(drawn).ravel().tolist())
    assert not held & drawn
    first = int(instance.first)
    assert min(drawn) >= first
    assert max(held) < first + 2048


def test_a_markov_chain_has_its_transition_frequencies():
    source = task_text.markov(4)
    chain = source.instance(jax.random.key(0))
    rows = np.asarray(
        source.draw(chain, jax.random.key(1), 2000, 20, jnp.asarray(2000))
    )
    counts = np.zeros((4, 4))
    np.add.at(counts, (rows[:, :-1].ravel(), rows[:, 1:].ravel()), 1)
    wanted = np.diff(np.asarray(chain.cumulative), axis=1, prepend=0)
    np.testing.assert_allclose(counts / counts.sum(1, keepdims=True), wanted, atol=0.02)


def test_an_echo_is_the_code_of_what_was():
    source = task_text.echo(16, 5)
    own = source.instance(jax.random.key(0))
    rows = source.draw(own, jax.random.key(1), 4, 14, jnp.asarray(4))
    np.testing.assert_array_equal(rows[:, 5:], own.code[rows[:, :-5]])


def test_words_are_spelled_and_spaced():
    source = task_text.words(16, 12)
    own = source.instance(jax.random.key(0))
    rows = np.asarray(source.draw(own, jax.random.key(1), 32, 20, jnp.asarray(32)))
    known = {tuple(word) for word in np.asarray(own.spelling).tolist()}
    for row in rows:
        [places] = np.nonzero(row == 0)
        np.testing.assert_array_equal(np.diff(places), 4)
        first = places[0] + 1
        whole = row[first : first + 4 * ((20 - first) // 4)].reshape(-1, 4)
        assert {tuple(word) for word in whole.tolist()} <= known


def test_the_vocabulary_is_a_multiple_of_16_above_all_ids():
    assert task_text.texts({"a": text(0, vocab=40)}).vocab == 48
    assert task_text.texts({"a": text(0, vocab=40)}, 40).vocab == 40


def test_bad_texts_are_named():
    with pytest.raises(UserError, match="at least one"):
        task_text.texts({})
    with pytest.raises(UserError, match="a has 100 tokens"):
        task_text.texts({"a": text(0, 100)})
    with pytest.raises(UserError, match="vocab of 8"):
        task_text.texts({"a": text(0)}, 8)
