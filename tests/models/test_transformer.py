import dataclasses
import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.build import build, initial_state
from uets_jax.config import replace_from_dict
from uets_jax.measure.flops import parameters
from uets_jax.models.layers import Norm
from uets_jax.models.presets import model_config
from uets_jax.models.transformer import Block, Model, make_model
from uets_jax.step import train_step

PRESETS = ("modern", "gpt2")


def tiny_model(preset="modern", **fields):
    return model_config(preset, "tiny", vocab=64, **fields)


def compiled(config):
    """The model's functions, each as one executable."""
    return Model(*map(jax.jit, make_model(config)))


def trained(config, key):
    """(compiled model, params with every leaf random): zero starts hide nothing."""
    model, rng = compiled(config), np.random.default_rng(0)
    draw = lambda x: jnp.asarray(0.1 * rng.normal(size=x.shape) + 0.5, x.dtype)
    shift = lambda x: draw(x) - 0.5 * (x.ndim > 2)
    return model, jax.tree.map(shift, jax.eval_shape(model.init, key))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_logit_depends_on_no_later_token(preset, key):
    model, params = trained(tiny_model(preset), key)
    tokens = jax.random.randint(jax.random.key(2), (2, 32), 0, 64)
    changed = tokens.at[:, 20].set((tokens[:, 20] + 1) % 64)
    before, after = model.logits(params, tokens), model.logits(params, changed)
    np.testing.assert_array_equal(before[:, :20], after[:, :20])
    assert jnp.abs(before[:, 20:] - after[:, 20:]).max(-1).min() > 0


def test_masked_documents_do_not_see_each_other(key, batch):
    model, params = trained(tiny_model(mask_documents=True), key)
    changed = batch._replace(tokens=batch.tokens.at[:, 5].set(3))
    before = model.forward(params, batch)[1].features
    after = model.forward(params, changed)[1].features
    np.testing.assert_array_equal(before[:, 20:], after[:, 20:])
    assert not np.array_equal(before[:, 5:20], after[:, 5:20])


def layer_by_layer(config, params, tokens):
    """The logits by a Python loop over the layers, without scan."""
    x = params["embed"]["table"][tokens]
    if config.position == "learned":
        x = x + params["positions"]["table"][None, : tokens.shape[1]]
    shape = (*tokens.shape, config.kv_heads, config.head_dim)
    first = jnp.zeros(shape) if config.value_residual else None
    for layer in range(config.depth):
        own = jax.tree.map(lambda p, i=layer: p[i], params["blocks"])
        is_first = jnp.float32(layer == 0)
        carry = ((x, first), is_first, jnp.zeros_like(tokens))
        (x, first), _ = Block(config).apply({"params": own}, *carry)
    norm = Norm(config.norm, config.bias)
    x = norm.apply({"params": params["final_norm"]}, x)
    head = params["embed"]["table"].T if config.tied else params["head"]["w"]
    z = x @ head
    return config.softcap * jnp.tanh(z / config.softcap) if config.softcap else z


@pytest.mark.parametrize("preset", PRESETS)
def test_scanned_blocks_equal_a_python_loop_over_layers(preset, key):
    config = tiny_model(preset)
    model, params = trained(config, key)
    tokens = jax.random.randint(jax.random.key(2), (2, 32), 0, 64)
    z = jax.jit(functools.partial(layer_by_layer, config))(params, tokens)
    chex.assert_trees_all_close(model.logits(params, tokens), z, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("preset", PRESETS)
def test_remat_changes_no_number(preset, key, batch):
    grads = []
    for remat in (False, True):
        config = tiny_model(preset, remat=remat)
        _, params = trained(config, key)
        forward = make_model(config).forward
        loss = lambda p, f=forward: f(p, batch)[0].mean()
        grads.append(jax.jit(jax.grad(loss))(params))
    chex.assert_trees_all_close(*grads, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("preset", PRESETS)
def test_an_untrained_model_scores_ln_vocab(preset, key, batch):
    model = compiled(tiny_model(preset))
    losses, _ = model.forward(model.init(key), batch)
    assert losses[:, :-1].mean() == pytest.approx(math.log(64), rel=0.01)
    np.testing.assert_array_equal(losses[:, -1], 0.0)  # ignored targets


# GPT-2's sizes as published with the released checkpoints
PUBLISHED = {
    "gpt2-small": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_gpt2_has_the_published_number_of_parameters(size, key):
    config = model_config("gpt2", size, vocab=50257)
    shapes = jax.eval_shape(make_model(config).init, key)
    assert sum(x.size for x in jax.tree.leaves(shapes)) == PUBLISHED[size]
    assert parameters(config) == PUBLISHED[size]


def test_bfloat16_computes_in_bfloat16_and_keeps_parameters_float32(key, batch):
    config = tiny_model(dtype="bfloat16")
    model = compiled(config)
    params = model.init(key)
    losses, stats = model.forward(params, batch)
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert stats.features.dtype == jnp.bfloat16
    assert losses.dtype == jnp.float32
    exact, wide = trained(dataclasses.replace(config, dtype="float32"), key)
    close = exact.forward(wide, batch)[0], model.forward(wide, batch)[0]
    chex.assert_trees_all_close(*close, atol=0.1)


def test_grouped_heads_share_keys_and_values(key):
    config = model_config("modern", "tiny", vocab=64, heads=4, kv_heads=2)
    model = make_model(config)
    params = jax.eval_shape(model.init, key)
    attention = params["blocks"]["attention"]
    assert attention["query"]["w"].shape == (2, 32, 4, 16)
    assert attention["key"]["w"].shape == (2, 32, 2, 16)
    tokens = jnp.zeros((1, 8), jnp.int32)
    assert jax.eval_shape(model.logits, params, tokens).shape == (1, 8, 64)


def test_swiglu_has_three_matrices(key):
    init = make_model(tiny_model(activation="swiglu")).init
    params = jax.eval_shape(init, key)
    assert set(params["blocks"]["mlp"]) == {"up", "gate", "down"}


def test_a_key_turns_dropout_on_and_another_one_changes_it(key, batch):
    model, params = trained(tiny_model(dropout=0.1), key)
    plain, _ = trained(tiny_model(), key)
    losses = [model.forward(params, batch, jax.random.key(i))[0] for i in (1, 1, 2)]
    np.testing.assert_array_equal(losses[0], losses[1])
    assert not np.array_equal(losses[0], losses[2])
    off = model.forward(params, batch)[0]
    np.testing.assert_array_equal(off, plain.forward(params, batch)[0])
    assert not np.array_equal(losses[0], off)
    one, two = (model.logits(params, batch.tokens, jax.random.key(i)) for i in (1, 2))
    assert not np.array_equal(one, two)


@pytest.mark.parametrize("remat", [False, True])
def test_every_layer_has_a_mask_of_its_own(remat, key, batch):
    config = tiny_model("gpt2", dropout=0.5, remat=remat)
    model = compiled(config)
    params = jax.tree.map(jnp.zeros_like, model.init(key))
    params["final_norm"]["scale"] += 1
    params["blocks"]["mlp"]["down"]["b"] += 1  # all that a layer adds is its mask
    features = model.forward(params, batch, jax.random.key(1))[1].features
    levels = {len(np.unique(row)) for row in np.asarray(features[0])}
    assert levels == {1 + config.depth}


def test_training_with_dropout_is_determined_by_the_state(tiny, batch):
    changes = {"model": {"dropout": 0.1}, "train": {"microbatches": 2}}
    config = replace_from_dict(tiny, changes)
    program = build(config)
    step = jax.jit(functools.partial(train_step, program))
    state = jax.jit(functools.partial(initial_state, config, program))()
    state, _ = step(state, batch)  # a head of zeros would hide the masks
    after, metrics = step(state, batch)
    again, same = step(state, batch)
    chex.assert_trees_all_equal((after.params, metrics), (again.params, same))
    later = step(state._replace(step=state.step + 1), batch)[1]
    assert float(later["loss"]) != float(metrics["loss"])
    assert float(metrics["loss"]) < math.log(64) + 0.05
