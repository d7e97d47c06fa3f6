"""A learned rule of two numbers, and families that compile in a moment."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from uets_jax.meta.family import Family

SPREAD = jnp.asarray(np.random.default_rng(0).integers(1, 2**31, (2, 16)), jnp.uint32)


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


def _unit(key, n):
    """n numbers in [0, 1) from a key's own bits: no generator has to be compiled."""
    mixed = (jax.random.key_data(key)[:, None] * SPREAD[:, :n]).sum(0)
    return (mixed >> 8).astype(jnp.float32) / 2**24


def _bowl(name="bowl", size=4, horizon=20, rate=0.1):
    def instance(key):
        own = _unit(key, 2 * size)
        return {"goal": 2 * own[:size] - 1, "curvature": jnp.exp(-3 * own[size:])}

    def held(params, own, away=0.0):
        residual = params["w"][:, 0] - own["goal"] - away
        return 1e-3 + 0.5 * (own["curvature"] * jnp.square(residual)).sum()

    def loss(params, own, key, rows):
        away = 0.1 * (_unit(key, size) - 0.5) / jnp.sqrt(rows.astype(jnp.float32))
        return held(params, own, away)

    def init(own, key):
        return {"w": _unit(key, size)[:, None] - 0.5}

    return Family(name, instance, init, loss, held, 8, horizon, rate)


@pytest.fixture(scope="session")
def bowl():
    """(name, size, horizon, rate) -> noisy quadratics with diagonal curvature."""
    return _bowl


@pytest.fixture(scope="session")
def learns():
    """Checks a family: Adam lowers the loss of two instances, which differ."""

    def check(family, steps=60):
        rule = optax.adam(1e-2)

        @jax.jit
        def go(key):
            own, init, train = jax.random.split(key, 3)
            instance = family.instance(own)
            first = family.init(instance, init)

            def step(carry, k):
                params, opt = carry
                rows = jnp.asarray(family.batch)
                grads = jax.grad(family.loss)(params, instance, k, rows)
                updates, opt = rule.update(grads, opt, params)
                return (optax.apply_updates(params, updates), opt), None

            start, keys = (first, rule.init(first)), jax.random.split(train, steps)
            (last, _), _ = jax.lax.scan(step, start, keys)
            return instance, family.held(first, instance), family.held(last, instance)

        one, two = go(jax.random.key(1)), go(jax.random.key(2))
        for _, before, after in (one, two):
            assert 0 < float(after) < float(before)
        assert plain(one[0]) != plain(two[0])

    return check


def plain(instance):
    """All of an instance as bytes."""
    bare = lambda x: (
        jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    )
    return b"".join(np.asarray(bare(x)).tobytes() for x in jax.tree.leaves(instance))


@pytest.fixture(scope="session")
def raw():
    """`plain`, for tests."""
    return plain
