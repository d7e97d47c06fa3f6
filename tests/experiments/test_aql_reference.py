import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import aql_reference, arms
from experiments.aql_reference import WIDTH, reference
from uets_jax.build import build
from uets_jax.config import DataConfig, window_length
from uets_jax.data.store import open_store, write_store
from uets_jax.data.windows import sequential, window_count
from uets_jax.errors import UserError
from uets_jax.measure.flops import forward_flops
from uets_jax.types import Hypers, TrainState
from uets_jax.validation import validate


@pytest.fixture
def stores(tmp_path, corpus):
    source = f"files:{corpus}/*.txt"
    words = DataConfig(source=source, valid_source=source, tokenizer="bytes")
    write_store(tmp_path / "stores" / "mixture.a", words)
    return tmp_path / "stores"


@pytest.fixture
def small(tiny, monkeypatch):
    """A tiny model, untrained, in place of the run; the calls that were made."""
    model = dataclasses.replace(tiny.model, vocab=257)
    config, made = dataclasses.replace(tiny, model=model), []
    params = jax.jit(build(config).init)(jax.random.key(1))
    draw = np.random.default_rng(0).normal  # or all losses are alike
    params = jax.tree.map(
        lambda x: x + 0.1 * draw(size=x.shape).astype(x.dtype), params
    )

    no = Hypers(*jnp.zeros(4))

    def run_job(job, runs):
        state = TrainState(jnp.zeros((), int), jax.random.key(0), params, (), no, {})
        job.measure(types.SimpleNamespace(config=job.config, state=state))
        made.append(job)
        flops = {"forward_backward": 70, "optimizer": 30, "evaluation": 9}
        return {"flops": flops, "bits_per_byte": 2.5}

    monkeypatch.setattr(aql_reference, "_config", lambda stores: config)
    monkeypatch.setattr(aql_reference, "run_job", run_job)
    monkeypatch.setattr(arms, "LENGTH", window_length(config))
    return config, params, made


def test_it_is_a_small_model_on_the_cleaned_text(monkeypatch, tmp_path):
    monkeypatch.setattr(arms, "step_flops", lambda arm, depth, batch: 10**8 * batch)
    config = aql_reference._config(tmp_path)
    validate(config)
    assert config.data.source == f"tokens:{tmp_path}/b3.target.0.15.a"
    assert config.model.width == WIDTH < arms.WIDTH
    assert config.train.seed not in range(10)  # of no run that it serves
    assert config.train.steps == round(arms.UNIT / 16 / (8 * 10**8))


def test_every_window_of_the_pool_has_its_loss(small, stores, tmp_path, monkeypatch):
    config, params, made = small
    monkeypatch.setattr(aql_reference, "ROWS", 32)  # the last batch is not full
    cost = reference(stores, tmp_path / "runs")
    store, length = open_store(stores / "mixture.a"), window_length(config)
    tokens = store.tokens("train")
    losses = np.load(stores / "reference.npy")
    assert losses.shape == (window_count(len(tokens), length),)
    assert losses.std() > 0.01
    [first, *_] = sequential(tokens, store.tokenizer.eot, length, 8)
    token_losses, _ = build(config).forward(params, jax.tree.map(jnp.asarray, first))
    np.testing.assert_allclose(losses[:8], token_losses.mean(1), rtol=1e-5)
    assert cost == {
        "training_flops": 100,
        "flops_per_token": forward_flops(config.model, length),
        "bits_per_byte": 2.5,
    }
    assert reference(stores, tmp_path / "runs") == cost
    assert len(made) == 1


def test_a_reference_that_diverged_is_none(small, stores, tmp_path, monkeypatch):
    record = {"bits_per_byte": None, "diverged": True, "why": "loss is nan"}
    monkeypatch.setattr(aql_reference, "run_job", lambda job, runs: record)
    with pytest.raises(UserError, match="reference: loss is nan"):
        reference(stores, tmp_path / "runs")
    assert not (stores / "reference.json").exists()
