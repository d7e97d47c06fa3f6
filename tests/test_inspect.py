import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.build import build
from uets_jax.models.layers import Norm
from uets_jax.models.presets import model_config
from uets_jax.models.transformer import make_model
from uets_jax.types import Gates

KINDS = {
    "modern": {},
    "gpt2": {},
    "grouped": {"heads": 4, "kv_heads": 2, "head_dim": 8, "remat": True},
    "tables": {"memory_rows": 64, "activation": "swiglu"},
    "experts": {"experts": 4, "active_experts": 2},
    "biased_experts": {"experts": 4, "bias": True, "activation": "gelu"},
}


@functools.cache
def made(kind, **fields):
    """(config, its compiled inspect and forward, params with every leaf random)."""
    preset = kind if kind in ("modern", "gpt2") else "modern"
    config = model_config(preset, "tiny", vocab=64, **KINDS[kind], **fields)
    model, rng = make_model(config), np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    draw = lambda s: jnp.asarray(0.2 * rng.normal(size=s.shape), s.dtype)
    params = jax.tree.map(draw, shapes)
    return config, jax.jit(model.inspect), jax.jit(model.forward), params


def ones(config, rows=1):
    heads = jnp.ones((config.depth, rows, config.heads))
    return Gates(heads, jnp.ones((config.depth, rows, config.hidden)))


@pytest.mark.parametrize("kind", KINDS)
def test_inspection_gives_what_forward_gives(kind, batch):
    _, inspect, forward, params = made(kind)
    losses, stats = forward(params, batch)
    found, seen, _ = inspect(params, batch)
    np.testing.assert_allclose(found, losses, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(seen.features, stats.features, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 8])
def test_gates_of_ones_change_nothing(kind, rows, batch):
    config, inspect, _, params = made(kind)
    plain = inspect(params, batch)
    gated = inspect(params, batch, ones(config, rows))
    np.testing.assert_allclose(gated[0], plain[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_with_gates_of_zero_passes_the_stream_as_it_is(kind, batch):
    config, inspect, _, params = made(kind)
    shut = jax.tree.map(lambda g: g.at[-1].set(0.0), ones(config))
    _, _, taps = inspect(params, batch, shut)
    np.testing.assert_array_equal(taps.outputs[-1], taps.inputs[-1])
    assert not np.array_equal(taps.outputs[0], taps.inputs[0])


@pytest.mark.parametrize("kind", KINDS)
def test_zero_gates_of_the_last_layer_equal_the_model_without_it(kind, batch):
    config, inspect, _, params = made(kind)
    shut = jax.tree.map(lambda g: g.at[-1].set(0.0), ones(config))
    shorter = dataclasses.replace(config, depth=config.depth - 1)
    rest = {**params, "blocks": jax.tree.map(lambda p: p[:-1], params["blocks"])}
    expected, _ = jax.jit(make_model(shorter).forward)(rest, batch)
    losses, _, _ = inspect(params, batch, shut)
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["modern", "experts"])
def test_a_gate_of_zero_removes_its_head_or_unit(kind, batch):
    config, inspect, _, params = made(kind)
    gates = ones(config)
    gates = Gates(gates.heads.at[0, 0, 1].set(0), gates.hidden.at[1, 0, 3].set(0))
    cut = jax.tree.map(lambda p: p, params)
    attention = cut["blocks"]["attention"]["output"]
    attention["w"] = attention["w"].at[0, 1].set(0)
    down = cut["blocks"]["experts" if config.experts else "mlp"]["down"]
    down["w"] = down["w"].at[1, ..., 3, :].set(0)
    losses, _, _ = inspect(params, batch, gates)
    expected, _, _ = inspect(cut, batch)
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["modern", "biased_experts"])
def test_rows_may_have_gates_of_their_own(kind, batch):
    config, inspect, _, params = made(kind, capacity=0.0)
    shut = jax.tree.map(lambda g: g.at[:, 3].set(0.0), ones(config, 8))
    losses, _, taps = inspect(params, batch, shut)
    plain, _, _ = inspect(params, batch)
    np.testing.assert_array_equal(taps.outputs[-1, 3], taps.inputs[0, 3])
    others = np.arange(8) != 3
    np.testing.assert_allclose(losses[others], plain[others], rtol=1e-5, atol=1e-5)
    assert not np.allclose(losses[3], plain[3], atol=1e-3)


def attention(q, k, v, **_):
    """Causal attention in the precision of its inputs; that of jax.nn has float32."""
    scores = jnp.einsum("blhk,bmhk->bhlm", q, k) / q.shape[-1] ** 0.5
    causal = jnp.tril(jnp.ones(scores.shape[2:], bool))[None, None]
    p = jax.nn.softmax(jnp.where(causal, scores, -1e30))
    return jnp.einsum("bhlm,bmhk->blhk", p, v)


@pytest.mark.parametrize("kind", ["modern", "gpt2", "biased_experts"])
def test_the_gradient_of_a_gate_is_a_finite_difference(kind, batch, monkeypatch):
    monkeypatch.setattr(jax.nn, "dot_product_attention", attention)
    config, _, _, params = made(kind, active_experts=4)  # so that no route changes
    exact = dataclasses.replace(config, capacity=0.0)
    object.__setattr__(exact, "dtype", "float64")
    with jax.enable_x64(True):
        double = lambda tree: jax.tree.map(lambda x: x.astype(jnp.float64), tree)
        params, gates = double(params), double(ones(config))
        loss = jax.jit(lambda g: make_model(exact).inspect(params, batch, g)[0].mean())
        slope = jax.jit(jax.grad(loss))(gates)
        for field, at in (("heads", (1, 0, 1)), ("hidden", (0, 0, 5))):
            value, found = getattr(gates, field), float(getattr(slope, field)[at])
            up, down = (
                float(loss(gates._replace(**{field: value.at[at].add(h)})))
                for h in (1e-5, -1e-5)
            )
            assert abs(found) > 1e-7
            assert found == pytest.approx((up - down) / 2e-5, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_taps_have_the_shapes_of_what_they_show(kind, batch):
    c, inspect, _, params = made(kind)
    _, _, taps = jax.eval_shape(inspect, params, batch)
    assert taps.inputs.shape == taps.outputs.shape == (c.depth, 8, 32, c.width)
    assert taps.queries.shape == (c.depth, 8, 32, c.heads, c.head_dim)
    assert taps.keys.shape == (c.depth, 8, 32, c.kv_heads, c.head_dim)
    assert taps.hidden.shape == (c.depth, 8, 32, c.hidden)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_reads_what_the_one_before_wrote(kind, batch):
    _, inspect, _, params = made(kind)
    _, _, taps = inspect(params, batch)
    np.testing.assert_array_equal(taps.outputs[:-1], taps.inputs[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_the_norm_of_the_last_output(kind, batch):
    config, inspect, _, params = made(kind)
    _, stats, taps = inspect(params, batch)
    norm = Norm(config.norm, config.bias)
    features = norm.apply({"params": params["final_norm"]}, taps.outputs[-1])
    np.testing.assert_allclose(stats.features, features, rtol=1e-5, atol=1e-6)


def test_hidden_taps_lead_to_the_output_of_the_mlp(batch):
    config, inspect, _, params = made("modern")
    shut = ones(config)._replace(heads=jnp.zeros((config.depth, 1, config.heads)))
    _, _, taps = inspect(params, batch, shut)
    w = params["blocks"]["mlp"]["down"]["w"]
    written = jnp.einsum("nblf,nfd->nbld", taps.hidden, w)
    np.testing.assert_allclose(
        taps.inputs + written, taps.outputs, rtol=1e-4, atol=1e-4
    )


def test_hidden_taps_of_equal_experts_are_those_of_the_one_mlp(batch):
    config, inspect, _, params = made("modern")
    mixed = dataclasses.replace(config, experts=4, active_experts=2, capacity=0.0)
    blocks = {n: p for n, p in params["blocks"].items() if n != "mlp"}
    copies = jax.tree.map(
        lambda p: jnp.repeat(p[:, None], 4, 1), params["blocks"]["mlp"]
    )
    router = {"w": jnp.ones((config.depth, config.width, 4))}
    blocks["experts"] = {**copies, "router": router}
    found = jax.jit(make_model(mixed).inspect)({**params, "blocks": blocks}, batch)
    expected = inspect(params, batch)
    np.testing.assert_allclose(
        found[2].hidden, expected[2].hidden, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-5)


def test_queries_and_keys_are_those_of_the_attention(batch):
    _, inspect, _, params = made("modern")
    _, _, taps = inspect(params, batch)
    size = jnp.sqrt(jnp.square(taps.queries).mean(-1))  # a rotation keeps lengths
    scale = params["blocks"]["attention"]["query_norm"]["scale"]
    x = Norm("rms").apply(
        {"params": jax.tree.map(lambda p: p[0], params["blocks"]["attention_norm"])},
        taps.inputs[0],
    )
    q = jnp.einsum("bld,dhk->blhk", x, params["blocks"]["attention"]["query"]["w"][0])
    q = q / jnp.sqrt(jnp.square(q).mean(-1, keepdims=True) + 1e-6)
    q = q * scale[0][None, None, None, :]
    np.testing.assert_allclose(
        size[0], jnp.sqrt(jnp.square(q).mean(-1)), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(taps.queries[0, :, 0], q[:, 0], rtol=1e-4, atol=1e-5)


def test_a_forward_of_ones_own_leaves_inspection_the_models(
    tiny, program, state, batch
):
    own = lambda params, batch: (batch.tokens * 1.0, None)
    changed = build(tiny, {"forward": own})
    assert changed.forward is own
    args = (state.params, batch)
    _, stats, taps = jax.eval_shape(changed.inspect, *args)
    assert (stats, taps) == jax.eval_shape(program.inspect, *args)[1:]


def test_inspection_may_be_ones_own(tiny):
    own = lambda params, batch, gates=None: ()
    assert build(tiny, {"inspect": own}).inspect is own
