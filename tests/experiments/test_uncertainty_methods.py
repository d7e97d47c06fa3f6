import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.uncertainty_methods import (
    dropout,
    embedded,
    fitted,
    last_layer,
    mean_embedding,
    several,
    softmax,
)
from uets_jax.models.presets import model_config
from uets_jax.models.transformer import make_model

CONFIG = model_config("modern", "tiny", vocab=64, dropout=0.2)
SIZES = (CONFIG.width, CONFIG.vocab)
MODEL = make_model(CONFIG)


@pytest.fixture(scope="module")
def params():
    """Random everywhere: zero starts hide nothing."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(MODEL.init, jax.random.key(0))
    draw = lambda x: jnp.asarray(0.4 * rng.normal(size=x.shape), x.dtype)
    return jax.tree.map(draw, shapes)


@pytest.fixture(scope="module")
def whole(batch):
    """Rows without an ignored target."""
    return batch._replace(targets=batch.tokens)


@pytest.fixture(scope="module")
def forward(params, whole):
    return jax.jit(MODEL.forward)(params, whole)


def run(way, batch, function="scores"):
    given = getattr(way, function)
    return jax.jit(lambda a, b: given(a, b, jax.random.key(1)))(way.arrays, batch)


def test_softmax_reads_the_forward_pass(params, whole, forward):
    plain, chosen = softmax(MODEL, params)
    p = np.asarray(run(plain, whole, "probabilities"))
    found = run(plain, whole)
    np.testing.assert_allclose(found["loss"], forward[0], rtol=1e-5)
    np.testing.assert_allclose(found["entropy"], -(p * np.log(p)).sum(-1), rtol=1e-3)
    found = run(chosen, whole)["1 - max p"]
    np.testing.assert_allclose(found, 1 - p.max(-1), atol=1e-6)


def test_the_posterior_of_the_head_is_that_of_its_training_features(
    params, whole, forward
):
    every, thin = last_layer(MODEL, params, [whole, whole], *SIZES)
    stats, state = forward[1], every.arrays[1]
    phi = np.asarray(stats.features, np.float64).reshape(-1, CONFIG.width)
    b = float(1 - stats.collision.mean()) / CONFIG.vocab
    assert float(state.curvature) == pytest.approx(b, rel=1e-4)
    precision = 2 * phi.T @ phi + float(state.tau) / b * np.eye(CONFIG.width)
    lever = (phi * np.linalg.solve(precision, phi.T).T).sum(1).reshape(8, 32)
    found = run(every, whole)
    np.testing.assert_allclose(found["leverage"], lever, rtol=0.01)
    gain = 0.5 * lever / b * (1 - stats.collision)
    np.testing.assert_allclose(found["bald"], gain, rtol=0.01)
    one_in_eight = run(thin, whole)["bald"]
    np.testing.assert_allclose(one_in_eight, found["bald"][:, 7::8], rtol=1e-4)
    p = np.asarray(run(every, whole, "probabilities"))
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-5)
    plain = np.asarray(run(softmax(MODEL, params)[0], whole, "probabilities"))
    assert (p.max(-1) < plain.max(-1)).all()


def test_the_embedding_needs_no_forward_pass(params, whole):
    [way] = embedded(MODEL, params, [whole], *SIZES)
    assert float(way.arrays[1].tokens) == 8  # windows
    odd = whole._replace(tokens=jnp.full_like(whole.tokens, 5))
    usual, strange = (run(way, rows)["leverage"] for rows in (whole, odd))
    assert usual.shape == (8,)
    assert usual.max() < strange.min()
    rows = np.asarray(mean_embedding(params, whole), np.float64)
    state = fitted(MODEL, params, [whole], *SIZES, mean_embedding)
    np.testing.assert_allclose(state.second, rows.T @ rows / 8, rtol=1e-3, atol=1e-5)


def test_the_references_inform_where_their_draws_differ(params, whole):
    still = make_model(model_config("modern", "tiny", vocab=64))
    other = jax.tree.map(lambda p: 0.5 * p, params)
    pairs = [
        (dropout(MODEL, params, 3), dropout(still, params, 3)),
        (several(MODEL, [params, other]), several(MODEL, [params, params])),
    ]
    for [differ], [agree] in pairs:
        assert run(agree, whole)["bald"].max() < 1e-4
        found = run(differ, whole)
        assert found["bald"].mean() > 1e-3
        assert (found["entropy"] > found["bald"]).all()
        p = run(differ, whole, "probabilities")
        np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-5)
