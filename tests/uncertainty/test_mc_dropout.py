import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from uets_jax.errors import UserError
from uets_jax.models.presets import model_config
from uets_jax.models.transformer import make_model
from uets_jax.uncertainty.mc_dropout import information, mc_dropout


def one_layer(params, x, key):
    """Dropout 0.3 of the inputs of a softmax layer."""
    kept = jax.random.bernoulli(key, 0.7, x.shape) / 0.7
    return jnp.einsum("bli,iv->blv", kept * x, params)


WEIGHTS = jax.random.normal(jax.random.key(1), (12, 7))
X = jax.random.normal(jax.random.key(2), (4, 3, 12))


def test_it_equals_a_brute_force_loop(key):
    found = mc_dropout(one_layer, WEIGHTS, X, key, passes=5)
    keys = jax.random.split(jax.random.clone(key), 5)
    p = [np.asarray(jax.nn.softmax(one_layer(WEIGHTS, X, k))) for k in keys]
    mean = np.mean(p, 0)
    entropy = lambda q: stats.entropy(q, axis=-1)
    bald = entropy(mean) - np.mean([entropy(q) for q in p], 0)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(found.bald, bald, atol=1e-5)
    assert found.bald.min() > 0.01


def test_pieces_have_masks_of_their_own_and_the_same_distribution(key):
    x = jnp.repeat(X[:1], 64, 0)
    token = lambda pieces, k: information(
        lambda w, rows, k: one_layer(w, x[: len(rows)], k),
        WEIGHTS,
        jnp.zeros((64, 3), jnp.int32),
        k,
        passes=20,
        pieces=pieces,
    )
    a, b = (token(n, k) for n, k in zip((1, 8), jax.random.split(key), strict=True))
    assert a.shape == b.shape == (64, 3)
    assert len(np.unique(np.asarray(b)[:, 0])) == 64
    np.testing.assert_allclose(a.mean(0), b.mean(0), rtol=0.1)


@pytest.mark.parametrize("rate", [0.0, 0.2])
def test_of_a_model_it_informs_only_with_dropout(rate, key, batch):
    model = make_model(model_config("gpt2", "tiny", vocab=64, dropout=rate))
    init, own = jax.random.split(key)
    run = jax.jit(lambda p, t, k: information(model.logits, p, t, k, 4, pieces=2))
    found = run(jax.tree.map(lambda p: 3 * p, model.init(init)), batch.tokens, own)
    assert found.shape == batch.tokens.shape
    assert (found.mean() > 1e-3) == (rate > 0)


def test_numbers_that_cannot_work_are_refused(key):
    tokens = jnp.zeros((6, 3), jnp.int32)
    with pytest.raises(UserError, match="passes"):
        mc_dropout(one_layer, WEIGHTS, X, key, passes=0)
    with pytest.raises(UserError, match="pieces: 4 does not divide 6"):
        information(one_layer, WEIGHTS, tokens, key, pieces=4)
