"""The ring of embeddings against cosines in NumPy; what it forgets; in place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.selection.semantic import SemanticConfig, init, pool, semantic, similarity

WIDTH = 12


def embeddings(rows, seed=0):
    """Vectors with a large common part, as pooled features have."""
    rng = np.random.default_rng(seed)
    return (5 + rng.normal(size=(rows, WIDTH))).astype(np.float32)


def one_by_one(stream, size):
    """An oracle: Python lists, cosines after subtracting the running mean."""
    ring, mean, seen, found = [], np.zeros(WIDTH), 0, []
    for batch in stream:
        mean = mean + (batch.sum(0) - len(batch) * mean) / (seen + len(batch))
        seen += len(batch)
        seen -= size if seen >= 2 * size else 0
        known, own = list(ring), []
        for row in batch - mean:
            unit = row / np.linalg.norm(row)
            found.append(max([float(unit @ u) for u in known + own], default=-1.0))
            own.append(unit)
        ring = (ring + own)[-size:]
    return np.asarray(found)


def test_cosines_are_those_of_numpy_over_a_stream_that_wraps():
    stream = [embeddings(5, seed) for seed in range(9)]
    stream[1][2] = stream[0][0]
    stream[4][1] = stream[4][0]
    part = semantic(WIDTH, SemanticConfig(size=13))
    state, step, found = part.init(None), jax.jit(part.apply), []
    for batch in stream:
        highest, state = step(state, jnp.asarray(batch), jnp.ones(5, bool))
        found += highest.tolist()
    np.testing.assert_allclose(found, one_by_one(stream, 13), atol=1e-4)
    assert found[0] == -1
    assert found[21] > 0.999


def test_a_copy_is_found_until_the_ring_has_turned():
    part = semantic(WIDTH, SemanticConfig(size=16))
    step, everything = jax.jit(part.apply), jnp.ones(8, bool)
    first = jnp.asarray(embeddings(8, 99))
    _, state = step(part.init(None), first, everything)
    for seed in range(2):
        assert float(similarity(state, first).min()) > 0.85
        _, state = step(state, jnp.asarray(embeddings(8, seed)), everything)
    assert float(similarity(state, first).max()) < 0.85


def test_the_common_part_does_not_make_texts_alike():
    part, many = semantic(WIDTH), jnp.asarray(embeddings(200))
    highest, state = jax.jit(part.apply)(part.init(None), many, jnp.ones(200, bool))
    raw = many / jnp.linalg.norm(many, axis=1, keepdims=True)
    assert float((raw @ raw.T)[0, 1:].min()) > 0.85
    assert float(similarity(state, jnp.asarray(embeddings(50, 7))).mean()) < 0.75
    assert float(highest[100:].mean()) < 0.75


def test_rows_that_do_not_count_leave_no_trace():
    part, rows = semantic(WIDTH, SemanticConfig(size=8)), jnp.asarray(embeddings(4))
    valid = jnp.asarray([True, False, True, False])
    highest, state = jax.jit(part.apply)(part.init(None), rows, valid)
    assert highest[1] == highest[3] == -1
    two, same = jax.jit(part.apply)(part.init(None), rows[::2], jnp.ones(2, bool))
    np.testing.assert_allclose(highest[::2], two, atol=1e-6)
    np.testing.assert_allclose(state.ring, same.ring, atol=1e-6)
    assert int(state.seen) == 2


def test_pooling_is_the_mean_over_text():
    features = jnp.arange(24.0).reshape(2, 3, 4)
    mask = jnp.asarray([[True, True, False], [False] * 3])
    pooled = pool(features, mask)
    np.testing.assert_allclose(pooled[0], [2, 3, 4, 5])
    np.testing.assert_allclose(pooled[1], 0)


def test_nothing_is_like_an_empty_ring():
    found = similarity(init(WIDTH), jnp.asarray(embeddings(3)))
    assert found.tolist() == [-1, -1, -1]


def test_a_donated_ring_is_written_in_place():
    part, rows = semantic(64, SemanticConfig(size=8192)), jnp.zeros((4, 64))
    given = part.init(None), rows, jnp.ones(4, bool)
    held = jax.jit(part.apply, donate_argnums=0).lower(*given).compile()
    held, ring = held.memory_analysis(), 8192 * 64 * 4
    assert held is not None
    assert held.alias_size_in_bytes >= ring
    assert held.temp_size_in_bytes < ring / 4


def test_sizes_that_make_no_sense_are_refused():
    with pytest.raises(UserError, match=r"semantic\.size"):
        SemanticConfig(size=0)
    part = semantic(WIDTH, SemanticConfig(size=2))
    with pytest.raises(UserError, match="holds less than 3 rows"):
        part.apply(part.init(None), jnp.zeros((3, WIDTH)), jnp.ones(3, bool))
