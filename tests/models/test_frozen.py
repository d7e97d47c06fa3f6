import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.models.axes import names
from uets_jax.models.frozen import held, scan_above
from uets_jax.models.presets import model_config
from uets_jax.models.transformer import make_model

KINDS = {
    "modern": ("modern", {}),
    "gpt2": ("gpt2", {}),
    "remat": ("modern", {"remat": True}),
    "untied": ("gpt2", {"tied": False, "activation": "swiglu"}),
    "experts": ("modern", {"experts": 3, "active_experts": 2, "remat": True}),
    "tables": ("modern", {"memory_rows": 16, "heads": 4, "kv_heads": 2}),
}


def model_of(kind, frozen=0, **fields):
    preset, own = KINDS[kind]
    fields = {"vocab": 64, "depth": 3, "frozen": frozen, **own, **fields}
    return model_config(preset, "tiny", **fields)


def drawn(model, key):
    """Parameters of which none is zero, so that nothing hides behind one."""
    rng = np.random.default_rng(0)
    shift = lambda x: 0.5 * (x.ndim < 3)
    draw = lambda x: jnp.asarray(0.1 * rng.normal(size=x.shape) + shift(x), x.dtype)
    return jax.tree.map(draw, jax.eval_shape(make_model(model).init, key))


def learned_from(model, params, batch):
    """(loss, gradients) of a forward pass with all its terms."""

    def loss_fn(params):
        losses, stats = make_model(model).forward(params, batch)
        penalty = getattr(stats, "penalty", None)
        return losses.mean() + (0.0 if penalty is None else penalty)

    return jax.jit(jax.value_and_grad(loss_fn))(params)


def test_two_scans_equal_one_and_the_first_has_no_derivative():
    rows = jnp.arange(1.0, 6.0)
    step = lambda carry, row: (carry * row + 1, carry + row)

    def total(carry, rows, below):
        scan = lambda *given: scan_above(step, *given, below)
        last, seen = (scan if below else lambda *x: jax.lax.scan(step, *x))(carry, rows)
        return last + (seen**2).sum(), seen

    grad = jax.value_and_grad(total, (0, 1), has_aux=True)
    (plain, seen), (_, plain_rows) = grad(2.0, rows, 0)
    (value, also), (carry, by_row) = grad(2.0, rows, 3)
    np.testing.assert_array_equal((value, *also), (plain, *seen))
    assert float(carry) == 0
    np.testing.assert_array_equal(by_row, [0, 0, 0, *plain_rows[3:]])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frozen", [1, 2])
def test_loss_and_gradients_above_are_those_of_the_whole_model(
    kind, frozen, key, batch
):
    whole, part = model_of(kind), model_of(kind, frozen)
    params = drawn(whole, key)
    loss, grads = learned_from(part, params, batch)
    same, wanted = learned_from(whole, params, batch)
    assert float(loss) == pytest.approx(float(same), rel=1e-6)
    above = lambda tree: jax.tree.map(lambda x: x[frozen:], tree["blocks"])
    chex.assert_trees_all_close(above(grads), above(wanted), rtol=1e-6, atol=1e-6)
    for name in {"final_norm", "head"} & {*grads}:
        chex.assert_trees_all_close(grads[name], wanted[name], rtol=1e-6, atol=1e-6)
    below = jax.tree.map(lambda x: x[:frozen], grads["blocks"])
    inputs = [grads[name] for name in ("positions", "memory") if name in grads]
    inputs += [] if whole.tied else [grads["embed"]]
    for x in jax.tree.leaves((below, inputs)):
        assert not x.any()
    for x in jax.tree.leaves(above(grads)):
        assert x.any()


def test_a_tied_table_learns_as_a_head_alone(key, batch):
    tied, apart = model_of("gpt2", 1), model_of("gpt2", 1, tied=False)
    params = drawn(tied, key)
    table = params["embed"]["table"]
    split = {**params, "head": {"w": table.T}}
    _, grads = learned_from(tied, params, batch)
    _, wanted = learned_from(apart, split, batch)
    chex.assert_trees_all_close(
        grads["embed"]["table"], wanted["head"]["w"].T, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_is_above_is_updated(kind, key):
    model = model_of(kind, 2)
    params = jax.tree.map(lambda x: jnp.ones_like(x), drawn(model, key))
    found = jax.tree_util.tree_leaves_with_path(held(model, params))
    for path, update in found:
        where = names(path)
        if where[0] == "blocks":
            assert not update[:2].any()
            assert update[2:].all()
        elif where[0] in ("positions", "memory") or where == ("embed", "table"):
            assert update.all() == (model.tied and where[0] == "embed")
        else:
            assert update.all()


def test_updates_that_are_no_numbers_do_not_reach_what_is_frozen(key):
    model = model_of("modern", 1)
    spoilt = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), drawn(model, key))
    found = held(model, spoilt)
    assert all(not x[:1].any() for x in jax.tree.leaves(found["blocks"]))
    assert not found["embed"]["table"].any()


def test_the_other_functions_are_those_of_the_whole_model(key, batch):
    whole, part = make_model(model_of("modern")), make_model(model_of("modern", 2))
    params = drawn(model_of("modern"), key)
    chex.assert_trees_all_equal(jax.jit(part.init)(key), jax.jit(whole.init)(key))
    for name, given in (("logits", batch.tokens), ("inspect", batch)):
        ours, theirs = (jax.jit(getattr(m, name))(params, given) for m in (part, whole))
        chex.assert_trees_all_equal(ours, theirs)


@pytest.mark.parametrize("remat", [False, True])
def test_every_layer_has_a_mask_of_its_own(remat, key, batch):
    model = model_of("gpt2", 2, dropout=0.5, remat=remat)
    params = jax.tree.map(jnp.zeros_like, drawn(model, key))
    params["final_norm"]["scale"] += 1
    params["blocks"]["mlp"]["down"]["b"] += 1  # all that a layer adds is its mask
    forward = jax.jit(make_model(model).forward)
    features = forward(params, batch, jax.random.key(1))[1].features
    levels = {len(np.unique(row)) for row in np.asarray(features[0])}
    assert levels == {1 + model.depth}
    plain = dataclasses.replace(model, frozen=0)
    params = drawn(model, key)
    chex.assert_trees_all_close(
        forward(params, batch)[0],
        make_model(plain).forward(params, batch)[0],
        rtol=1e-5,
    )
