import contextlib
import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from uets_jax.config import OptimConfig
from uets_jax.growth import operators
from uets_jax.growth.operators import by_path, carried, move_params, move_state
from uets_jax.growth.plan import is_exact, moves
from uets_jax.growth.stages import Op, resized
from uets_jax.models.axes import axes_of, hidden_matrix, is_matrix, map_axes
from uets_jax.models.presets import model_config
from uets_jax.models.transformer import make_model
from uets_jax.optim.rules import rule
from uets_jax.types import Batch

SMALL = {
    "vocab": 17,
    "context": 6,
    "depth": 2,
    "width": 8,
    "heads": 2,
    "kv_heads": 2,
    "head_dim": 4,
    "hidden": 6,
    "capacity": 0.0,
}
KINDS = {
    "modern": {},
    "gpt2": {},
    "grouped": {"heads": 4, "kv_heads": 2, "tied": True},
    "tables": {"memory_rows": 4, "activation": "swiglu"},
}
WITHIN_DEPTH = {
    "identity": Op("depth", 4, "identity"),
    "random": Op("depth", 3, "random"),
    "stack": Op("depth", 4, "stack"),
    "interleave": Op("depth", 4, "interleave"),
    "middle": Op("depth", 3, "middle"),
}
OPS = {
    **WITHIN_DEPTH,
    "new heads": Op("heads", 6, "new"),
    "split heads": Op("heads", 4, "split"),
    "new units": Op("hidden", 9, "new"),
    "split units": Op("hidden", 11, "split"),
    "twice": Op("width", 16),
    "thrice": Op("width", 24),
    "experts": Op("experts", 3),
    "rows": Op("memory_rows", 8),
}
CHAINS = {
    "chain": ("split heads", "identity", "twice", "split units", "rows", "experts"),
    "other chain": ("twice", "random", "new units", "new heads", "experts"),
}
INEXACT = ("stack", "interleave", "middle")
TOKENS = np.random.default_rng(1).integers(0, 17, (2, 7))
BATCH = Batch(
    *(TOKENS[:, :-1].astype(np.int32), TOKENS[:, 1:].astype(np.int32)),
    *(np.arange(2, dtype=np.int32), np.zeros((2, 6), np.int32)),
)


def architecture(kind):
    preset = kind if kind == "gpt2" else "modern"
    return model_config(preset, "tiny", **{**SMALL, **KINDS[kind]})


def exact(model):
    """The model's functions in float64, past the Literal."""
    model = dataclasses.replace(model)
    object.__setattr__(model, "dtype", "float64")
    return make_model(model)


def attention(q, k, v, **_):
    """Causal and grouped, in the precision of its inputs; jax.nn's is float32."""
    k, v = (jnp.repeat(x, q.shape[2] // x.shape[2], axis=2) for x in (k, v))
    scores = jnp.einsum("blhk,bmhk->bhlm", q, k) / q.shape[-1] ** 0.5
    causal = jnp.tril(jnp.ones(scores.shape[2:], bool))[None, None]
    p = jax.nn.softmax(jnp.where(causal, scores, -1e30))
    return jnp.einsum("bhlm,bmhk->blhk", p, v)


@contextlib.contextmanager
def double():
    """Float64 throughout."""
    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.nn, "dot_product_attention", attention)
        yield patch


def drawn(model, seed=0):
    """Parameters far from where they begin: no zero hides anything."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(make_model(model).init, jax.random.key(0))
    return jax.tree.map(lambda x: 0.4 * rng.normal(size=x.shape), shapes)


def ops_of(kind, name):
    """The ops of a case for an architecture; those of heads keep its groups."""
    model = architecture(kind)
    for each in CHAINS.get(name, (name,)):
        op = OPS[each]
        if op.field == "heads" and model.kv_heads < model.heads:
            op = dataclasses.replace(op, size=6)
        if op.field == "memory_rows" and not model.memory_rows:
            op = dataclasses.replace(op, size=5)
        yield op


def grown(model, ops, params):
    """(model, params) after ops; what is fresh is drawn, too, but for new tables."""
    for number, op in enumerate(ops):
        after = resized(model, op)
        fresh = drawn(after, seed=10 + number)
        if not model.memory_rows and after.memory_rows:
            fresh["memory"] = jax.tree.map(np.zeros_like, fresh["memory"])
        fresh = jax.tree.map(jnp.asarray, fresh)
        key = jax.random.key(number)
        params = move_params(moves(model, op), params, fresh, key)
        model = after
    return model, params


@functools.cache
def changes(kind):
    """Of every case how far it moves the logits, all in one program."""
    model, params = architecture(kind), drawn(architecture(kind))

    def logits(model, params):
        return exact(model).logits(params, jnp.asarray(BATCH.tokens))

    def compare(params):
        old = logits(model, params)
        return {
            name: jnp.abs(logits(*grown(model, ops_of(kind, name), params)) - old).max()
            for name in (*OPS, *CHAINS)
        }

    with double():
        return jax.tree.map(float, jax.jit(compare)(params))


@pytest.mark.parametrize("name", [*OPS, *CHAINS])
@pytest.mark.parametrize("kind", KINDS)
def test_an_op_keeps_the_function_exactly_or_says_that_it_does_not(kind, name):
    change, model = changes(kind)[name], architecture(kind)
    told = all(is_exact(op, model) for op in ops_of(kind, name))
    assert told == (name not in INEXACT)
    assert change < 1e-9 if told else change > 1e-2


@functools.cache
def gradients(kind):
    """{case: (moves, what the old gradient becomes, the gradient of the grown model)}.

    The old gradient g is moved as an optimizer's moments are, g as the first and g^2
    as the second; copies are exact, so that they all stand for the same function.
    """
    model, params = architecture(kind), drawn(architecture(kind))
    shapes = lambda tree: {path: x.shape for path, x in by_path(tree).items()}

    def slope(model, params):
        batch = jax.tree.map(jnp.asarray, BATCH)
        loss = lambda p: exact(model).forward(p, batch)[0].mean()
        return jax.grad(loss)(params)

    def compare(params):
        old, found = slope(model, params), {}
        state = optax.ScaleByAdamState(
            jnp.zeros((), jnp.int32), old, jax.tree.map(jnp.square, old)
        )
        for name in OPS:
            if name in INEXACT:
                continue
            [op] = ops_of(kind, name)
            after, new = grown(model, [op], params)
            how, fresh = moves(model, op), optax.scale_by_adam().init(new)
            sizes = {
                path: (shapes(params)[move.old] if move.old else None, shape)
                for path, shape in shapes(new).items()
                if (move := how[path])
            }
            depths = (model.depth, after.depth)
            moved = move_state(how, depths, state, fresh, sizes)
            assert not moved.begun
            found[name] = (moved.state, slope(after, new))
        return found

    with double() as patch:
        patch.setattr(operators, "NOISE", 0.0)
        patch.setattr(operators, "LEAST_NOISE", 0.0)
        found = jax.device_get(jax.jit(compare)(params))
    how = lambda name: moves(model, *ops_of(kind, name))
    return {name: (how(name), *pair) for name, pair in found.items()}


@pytest.mark.parametrize("name", [name for name in OPS if name not in INEXACT])
@pytest.mark.parametrize("kind", ["gpt2", "grouped", "tables"])
def test_moments_move_as_the_gradient_does(kind, name):
    how, state, gradient = gradients(kind)[name]
    first, second = by_path(state.mu), by_path(state.nu)
    shared = {"experts": "expert", "rows": "bucket"}.get(name)
    compared = 0
    for path, real in by_path(gradient).items():
        move, kept = how[path], carried(how[path], real.shape)
        if move.old is None:
            assert not first[path].any()
            assert not second[path].any()
            continue
        axes = axes_of(path, real.ndim)
        guess, square = first[path], second[path]
        if shared in axes:  # copies share the old gradient, in unequal parts
            place = axes.index(shared)
            shape = list(real.shape)
            shape[place : place + 1] = [-1, 4] if shared == "bucket" else [-1, 1]
            parts = lambda x: x.reshape(shape).sum(place)
            np.testing.assert_allclose(parts(guess), parts(real), atol=1e-10)
            np.testing.assert_allclose(square, guess**2, atol=1e-12)
        else:
            np.testing.assert_allclose(guess[kept], real[kept], atol=1e-10)
            np.testing.assert_allclose(square[kept], real[kept] ** 2, atol=1e-10)
        compared += np.abs(real[kept]).max() > 1e-6
        assert not guess[~kept].any()
        if not kept.all():
            mean = square[kept].mean()
            np.testing.assert_allclose(square[~kept], mean, rtol=1e-6)
    assert compared > 10
