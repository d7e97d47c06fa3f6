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
