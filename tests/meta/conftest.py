"""A learned rule of two numbers, with the interface that meta-training expects."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import optax
import pytest


def _make(theta):
    def init(params):
        return jax.tree.map(jnp.zeros_like, params)

    def update(
        updates, state, params=None, *, learning_rate, weight_decay=0.0, **extra
    ):
        keep = jax.nn.sigmoid(theta["momentum"])
        state = jax.tree.map(lambda m, g: keep * m + (1 - keep) * g, state, updates)
        size = learning_rate * jnp.exp(theta["log_step"])
        step = lambda m, p: -size * (m + weight_decay * p)
        return jax.tree.map(step, state, params), state

    return optax.GradientTransformationExtraArgs(init, update)


@pytest.fixture(scope="session")
def toy():
    """SGD with momentum sigmoid(theta) and steps exp(theta) learning_rate."""
    start = {"log_step": jnp.zeros(()), "momentum": jnp.zeros(())}
    return SimpleNamespace(make=_make, start=start)
