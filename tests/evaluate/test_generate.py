import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.evaluate.generate import choose_token, generate

CONTEXT = 8


@pytest.fixture(scope="module")
def counter(program):
    """A program that always predicts the next number: token t is followed by t + 1."""

    def logits(params, tokens):
        return 10.0 * jax.nn.one_hot((tokens + 1) % 64, 64)

    return dataclasses.replace(program, logits=logits)


@pytest.mark.parametrize("length", [1, 5, 8, 30])
def test_greedy_text_goes_on_past_the_context(counter, length):
    prompt = np.arange(length)
    how = {"context": CONTEXT, "vocab": 64, "tokens": 20}
    out = generate(counter, {}, prompt, rows=2, temperature=0.0, **how)
    expected = (length + np.arange(20)) % 64
    np.testing.assert_array_equal(out, np.stack([expected, expected]))


def test_a_seed_fixes_the_text(program, state):
    settings = {"context": CONTEXT, "vocab": 64, "tokens": 6, "temperature": 1.0}
    prompt = np.arange(3)
    run = lambda seed: generate(program, state.params, prompt, seed=seed, **settings)
    np.testing.assert_array_equal(run(0), run(0))
    assert not np.array_equal(run(0), run(1))


def test_top_k_never_leaves_the_k_best(key):
    logits = jnp.tile(jnp.arange(10.0)[None, :], (500, 1))
    drawn = choose_token(logits, jnp.float32(5.0), 3, key)
    assert set(np.asarray(drawn).tolist()) == {7, 8, 9}


def test_frequencies_follow_the_softmax(key):
    logits = jnp.tile(jnp.log(jnp.asarray([0.5, 0.3, 0.2]))[None, :], (20_000, 1))
    drawn = np.bincount(choose_token(logits, jnp.float32(1.0), 0, key), minlength=3)
    np.testing.assert_allclose(drawn / 20_000, [0.5, 0.3, 0.2], atol=0.02)


def test_ids_that_no_tokenizer_has_are_never_drawn(counter):
    how = {"context": CONTEXT, "vocab": 10, "tokens": 5, "temperature": 0.0}
    out = generate(counter, {}, np.asarray([8]), **how)
    assert out[0].tolist()[0] == 9
    assert out.max() < 10
