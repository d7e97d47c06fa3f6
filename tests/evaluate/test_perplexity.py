import math

import jax
import numpy as np
import pytest

from uets_jax.evaluate.perplexity import (
    bits_per_byte,
    compile_losses,
    perplexity,
    target_bytes,
    unigram_nats,
)


def test_loss_is_the_mean_over_all_targets_of_all_batches(program, state, batch):
    found = perplexity(program, state.params, [batch, batch])
    losses = np.asarray(jax.jit(program.forward)(state.params, batch)[0])
    assert found["valid_tokens"] == 2 * 8 * 31
    assert found["valid_loss"] == pytest.approx(losses.sum() / (8 * 31), rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(found["valid_loss"]))
    assert found["valid_nats"] == pytest.approx(2 * losses.sum(), rel=1e-5)
    assert compile_losses(program) is compile_losses(program)


def test_bytes_of_targets_skip_the_ignored(batch):
    sizes = np.arange(64)
    targets = np.asarray(batch.targets)
    assert target_bytes([batch], sizes) == targets[targets >= 0].sum()


def test_bits_per_byte_of_a_uniform_byte_model_is_eight():
    assert bits_per_byte(100 * math.log(256), 100) == pytest.approx(8.0)


def test_unigram_equals_counting(batch):
    tokens = np.asarray([0, 0, 0, 1, 63])
    counts = np.ones(64)
    np.add.at(counts, tokens, 1)
    targets = np.asarray(batch.targets)
    targets = targets[targets >= 0]
    expected = -np.log(counts / counts.sum())[targets].sum()
    assert unigram_nats(tokens, [batch], 64) == pytest.approx(expected)
