import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.measure.flops import parameters
from uets_jax.measure.jaxpr import count
from uets_jax.models.memory import ngram_hash
from uets_jax.models.presets import model_config
from uets_jax.models.transformer import make_model

ROWS = 32


@pytest.fixture
def filled(key):
    """(model with tables, its parameters, the tables' rows at random)."""
    config = model_config("modern", "tiny", vocab=64, memory_rows=ROWS)
    model = make_model(config)
    params = model.init(key)
    tables = jax.tree.map(
        lambda x: jax.random.normal(jax.random.key(1), x.shape), params["memory"]
    )
    return model, {**params, "memory": tables}


def test_tables_start_as_if_they_were_not_there(key, batch):
    plain = make_model(model_config("modern", "tiny", vocab=64))
    tables = make_model(model_config("modern", "tiny", vocab=64, memory_rows=ROWS))
    params = tables.init(key)
    assert not any(x.any() for x in jax.tree.leaves(params["memory"]))
    rest = {name: leaf for name, leaf in params.items() if name != "memory"}
    found, expected = tables.forward(params, batch), plain.forward(rest, batch)
    chex.assert_trees_all_equal(found, expected)


def test_equal_ngrams_and_no_others_have_equal_hashes():
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 12, (8, 64))
    for order in (2, 3):
        hashes = np.asarray(ngram_hash(jnp.asarray(tokens), order)).ravel()
        padded = np.pad(tokens, ((0, 0), (order - 1, 0)), constant_values=-1)
        windows = np.lib.stride_tricks.sliding_window_view(padded, order, axis=1)
        grams = [tuple(w) for w in windows.reshape(-1, order)]
        assert len(set(zip(grams, hashes, strict=True))) == len(set(grams))
        assert len(set(hashes)) == len(set(grams))


def test_hashes_fill_the_rows_evenly():
    """Chi-squared of 4,096 distinct bigrams in 64 rows: 63 expected, sd 11."""
    tokens = jnp.stack(jnp.meshgrid(jnp.arange(64), jnp.arange(64)), -1).reshape(-1, 2)
    rows = np.asarray(ngram_hash(tokens, 2))[:, 1] % 64
    counts = np.bincount(rows, minlength=64)
    assert ((counts - 64) ** 2 / 64).sum() < 63 + 4 * 11


def test_a_row_is_learned_by_those_who_look_it_up(filled, batch):
    model, params = filled
    loss = lambda params: model.forward(params, batch)[0].sum()
    head = jax.random.normal(jax.random.key(2), params["head"]["w"].shape)
    grads = jax.grad(loss)({**params, "head": {"w": head}})["memory"]
    for order, name in ((2, "bigram"), (3, "trigram")):
        used = np.unique(np.asarray(ngram_hash(batch.tokens, order)) % ROWS)
        slope = np.abs(grads[name]["table"]).sum(-1)
        assert (slope[used] > 0).all()
        assert not np.delete(slope, used).any()


def test_no_logit_depends_on_a_later_token(filled):
    model, params = filled
    tokens = jax.random.randint(jax.random.key(3), (2, 32), 0, 64)
    head = {"w": jax.random.normal(jax.random.key(2), params["head"]["w"].shape)}
    logits = lambda t: model.logits({**params, "head": head}, t)
    before = logits(tokens)
    after = logits(tokens.at[:, 20].set((tokens[:, 20] + 1) % 64))
    np.testing.assert_array_equal(before[:, :20], after[:, :20])
    assert jnp.abs(before[:, 20:23] - after[:, 20:23]).max(-1).min() > 0


def test_masked_documents_share_no_ngram(key, batch):
    config = model_config("modern", "tiny", vocab=64, memory_rows=ROWS)
    config = dataclasses.replace(config, mask_documents=True)
    model = make_model(config)
    rng = np.random.default_rng(0)
    draw = lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype)
    params = jax.tree.map(draw, jax.eval_shape(model.init, key))
    changed = batch._replace(tokens=batch.tokens.at[:, 19].add(1))  # of document 0
    before, after = (model.forward(params, b)[1].features for b in (batch, changed))
    np.testing.assert_array_equal(before[:, 20:], after[:, 20:])
    assert not np.array_equal(before[:, 19], after[:, 19])


def test_more_rows_change_no_output(filled, batch):
    model, params = filled
    grown = make_model(model_config("modern", "tiny", vocab=64, memory_rows=4 * ROWS))
    more = jax.tree.map(lambda x: jnp.tile(x, (4, 1)), params["memory"])
    before = model.forward(params, batch)
    after = grown.forward({**params, "memory": more}, batch)
    chex.assert_trees_all_equal(before, after)


def test_tables_cost_no_matmul(batch):
    def matmul(rows):
        config = model_config("modern", "tiny", vocab=64, memory_rows=rows)
        model = make_model(config)
        params = jax.eval_shape(model.init, jax.random.key(0))
        assert sum(x.size for x in jax.tree.leaves(params)) == parameters(config)
        loss = lambda params: model.forward(params, batch)[0].sum()
        costs = count(jax.make_jaxpr(jax.grad(loss))(params)).total()
        return sum(cost.matmul for cost in costs.values())

    assert matmul(0) == matmul(ROWS)
