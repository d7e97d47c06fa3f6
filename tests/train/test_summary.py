import dataclasses

import jax.numpy as jnp

from uets_jax.train.session import open_session
from uets_jax.train.summary import (
    params_sha256,
    sample_texts,
    unigram_bits_per_byte,
)


def test_the_hash_of_parameters_sees_values_shapes_and_names():
    base = {"a": jnp.arange(6.0), "b": jnp.ones(2)}
    others = [
        {"a": jnp.arange(6.0).at[3].add(1e-6), "b": jnp.ones(2)},
        {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(2)},
        {"a": jnp.arange(6.0), "c": jnp.ones(2)},
        {"a": jnp.arange(6.0), "b": jnp.ones(2, jnp.bfloat16)},
    ]
    hashes = [params_sha256(p) for p in (base, *others)]
    assert len(set(hashes)) == 5
    assert params_sha256({"b": jnp.ones(2), "a": jnp.arange(6.0)}) == hashes[0]


def test_samples_continue_held_out_documents(tiny, corpus):
    data = dataclasses.replace(tiny.data, source=f"files:{corpus}/*.txt")
    model = dataclasses.replace(tiny.model, vocab=0)
    train = dataclasses.replace(tiny.train, samples=2)
    config = dataclasses.replace(tiny, data=data, model=model, train=train)
    session = open_session(config)
    samples = sample_texts(session, session.initial_state().params)
    assert len(samples) == 2
    assert all(s["prompt"].startswith("Document") for s in samples)
    assert 1.0 < unigram_bits_per_byte(session) < 8.0
