import chex
import jax
import jax.numpy as jnp
import optax
import pytest

from uets_jax.build import build, hypers, initial_state
from uets_jax.config import replace_from_dict
from uets_jax.errors import UserError


def test_configs_that_differ_in_traced_values_share_a_program(tiny):
    faster = replace_from_dict(
        tiny, {"optim": {"learning_rate": 1.0, "weight_decay": 0.0, "warmup": 0}}
    )
    longer = replace_from_dict(
        faster, {"train": {"steps": 1000, "seed": 7, "eval_every": 1}}
    )
    assert build(longer) is build(tiny)


def test_configs_that_differ_in_static_values_do_not(tiny):
    for other in (
        replace_from_dict(tiny, {"model": {"depth": 3}}),
        replace_from_dict(tiny, {"optim": {"name": "lion"}}),
        replace_from_dict(tiny, {"optim": {"schedule": "cosine"}}),
        replace_from_dict(tiny, {"train": {"microbatches": 2}}),
    ):
        assert build(other) != build(tiny)


def test_own_parts_replace_ours(tiny):
    sgd = optax.sgd(0.1)
    program = build(tiny, {"tx": sgd})
    assert build(tiny, {"tx": sgd}) is program
    state = jax.eval_shape(lambda: initial_state(tiny, program))
    assert jax.tree.leaves(state.opt) == []
    grads = {"w": jnp.ones(2)}
    extra = {"value": 1.0, "learning_rate": 9.0, "weight_decay": 9.0}
    updates, _ = program.tx.update(grads, sgd.init(grads), grads, **extra)
    assert updates["w"].tolist() == pytest.approx([-0.1, -0.1])


def test_an_unknown_override_is_named(tiny):
    with pytest.raises(UserError, match=r"'selects'.*'select'"):
        build(tiny, {"selects": None})


def test_a_vocabulary_is_needed(tiny):
    with pytest.raises(UserError, match=r"model\.vocab"):
        build(replace_from_dict(tiny, {"model": {"vocab": 0}}))


def test_hypers_come_from_the_config(tiny):
    found = hypers(tiny)
    expected = (tiny.optim.learning_rate, tiny.optim.weight_decay, 5, 8)
    assert tuple(float(x) for x in found) == pytest.approx(expected)


def test_a_learned_rule_without_weights_is_muon(tiny):
    """And with a gate it reads the decay and the rate of the run."""
    make = lambda **optim: build(replace_from_dict(tiny, {"optim": optim}))
    muon, off = make(name="muon"), make(name="learned", weights="")
    on = make(name="learned", gate_every=2)
    params = jax.jit(muon.init)(jax.random.key(0))
    grads = jax.tree.map(jnp.ones_like, params)
    rate = {"learning_rate": jnp.float32(0.1), "weight_decay": jnp.float32(0.1)}
    update = lambda tx: jax.jit(tx.update)(grads, tx.init(params), params, **rate)
    ours, expected, gated = (update(p.tx)[0] for p in (off, muon, on))
    chex.assert_trees_all_close(ours, expected, rtol=1e-6, atol=1e-8)
    apart = optax.tree.norm(jax.tree.map(jnp.subtract, gated, expected))
    assert 0 < float(apart) < 5 * float(optax.tree.norm(expected))  # bounds of a gate
