"""A byte-level model with opinions, and one whose opinions are a table."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.build import build
from uets_jax.types import IGNORED


@pytest.fixture(scope="session")
def speaker(tiny):
    """(program, params) of TINY over bytes; no parameter is zero."""
    model = dataclasses.replace(tiny.model, vocab=257)
    program = build(dataclasses.replace(tiny, model=model))

    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(program.init, jax.random.key(0))
    draw = lambda x: jnp.asarray(0.3 * rng.standard_normal(x.shape), x.dtype)
    return program, jax.tree.map(draw, shapes)


@pytest.fixture(scope="session")
def bigram(program):
    """A program whose parameters are a table of logits [last token, next token]."""

    def logits(table, tokens):
        return table[tokens]

    def forward(table, batch):
        known = batch.targets != IGNORED
        scores = jax.nn.log_softmax(logits(table, batch.tokens))
        at = jnp.where(known, batch.targets, 0)[..., None]
        picked = jnp.take_along_axis(scores, at, -1)[..., 0]
        return jnp.where(known, -picked, 0.0), None

    return dataclasses.replace(program, forward=forward, logits=logits)
