import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.measure import gradients, redundancy, signals
from uets_jax.measure.jaxpr import count
from uets_jax.models.presets import model_config
from uets_jax.models.transformer import make_model
from uets_jax.types import IGNORED, Batch, Gates, Taps

LAYERS, ROWS, LENGTH, WIDTH, HEADS, GROUPS, DIM, HIDDEN = 3, 6, 7, 8, 4, 2, 5, 9


def toy(params, batch, gates=None):
    """Attention and a ReLU MLP without norms; loss |x - wanted|^2 / 2 per token."""
    if gates is None:
        gates = Gates(jnp.ones((LAYERS, 1, HEADS)), jnp.ones((LAYERS, 1, HIDDEN)))
    x, seen = params["embed"][batch.tokens], []
    for layer in range(len(params["blocks"]["q"])):
        w = {name: leaf[layer] for name, leaf in params["blocks"].items()}
        before = x
        q, k, v = (jnp.einsum("btd,dhk->bthk", x, w[n]) for n in "qkv")
        out = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        out = out * gates.heads[layer][:, None, :, None]
        x = x + jnp.einsum("bthk,hkd->btd", out, w["out"])
        unit = jax.nn.relu(x @ w["up"])
        x = x + (unit * gates.hidden[layer][:, None]) @ w["down"]
        seen.append(Taps(before, x, q, k, unit))
    losses = jnp.square(x - params["wanted"][batch.targets]).sum(-1) / 2
    losses = jnp.where(batch.targets == IGNORED, 0.0, losses)
    return losses, None, Taps(*map(jnp.stack, zip(*seen, strict=True)))


@pytest.fixture(scope="module")
def params():
    """Of `toy`, random."""
    rng = np.random.default_rng(3)
    draw = lambda *shape: jnp.asarray(0.3 * rng.normal(size=shape), jnp.float32)
    blocks = {
        "q": draw(LAYERS, WIDTH, HEADS, DIM),
        "k": draw(LAYERS, WIDTH, GROUPS, DIM),
        "v": draw(LAYERS, WIDTH, GROUPS, DIM),
        "out": draw(LAYERS, HEADS, DIM, WIDTH),
        "up": draw(LAYERS, WIDTH, HIDDEN),
        "down": draw(LAYERS, HIDDEN, WIDTH),
    }
    return {"embed": 3 * draw(20, WIDTH), "wanted": draw(20, WIDTH), "blocks": blocks}


@pytest.fixture(scope="module")
def rows():
    """Six rows of seven tokens."""
    rng = np.random.default_rng(4)
    tokens = jnp.asarray(rng.integers(0, 20, (ROWS, LENGTH + 1)), jnp.int32)
    zeros = jnp.zeros((ROWS, LENGTH), jnp.int32)
    return Batch(tokens[:, :-1], tokens[:, 1:], jnp.arange(ROWS), zeros)


look = functools.partial(jax.jit, static_argnums=(0, 3))(signals.look)
removal = functools.partial(jax.jit, static_argnums=0)(signals.removal)


def loss_of(params, batch, gates=None, inspect=toy):
    """Nats per token."""
    return inspect(params, batch, gates)[0].sum() / (batch.targets != IGNORED).sum()


def some(batch, where):
    return jax.tree.map(lambda x: x[where], batch)


def test_features_are_read_in_the_order_of_the_rows(params, rows):
    """With targets that are missing in some rows, a swapped row would show."""
    holes = rows.targets.at[1].set(IGNORED).at[4, 3:].set(IGNORED)
    rows = rows._replace(targets=holes, segments=rows.segments.at[:, 4:].set(1))
    found = look(toy, params, rows, True)
    taps = toy(params, rows)[2]
    weights = (holes != IGNORED).astype(jnp.float32)
    weights = weights / weights.sum()
    for i in range(LAYERS):
        maps = redundancy.attention_maps(taps.queries[i], taps.keys[i], rows.segments)
        expected = (
            redundancy.influence(taps.inputs[i], taps.outputs[i], weights),
            redundancy.effective_rank(taps.outputs[i], weights),
            redundancy.head_similarity(maps, weights),
        )
        read = (found.influence[i], found.rank[i], found.similarity[i])
        np.testing.assert_allclose(read, expected, rtol=1e-3)


def test_gradients_are_those_of_the_whole_batch(params, rows):
    found = look(toy, params, rows)
    loss, grads = jax.value_and_grad(loss_of)(params, rows)
    np.testing.assert_allclose(found.loss, loss, rtol=1e-5)
    size = gradients.layer_rms(grads["blocks"])
    np.testing.assert_allclose(found.gradient, size, rtol=1e-4)
    ratio = gradients.layer_rms(params["blocks"]) / size
    np.testing.assert_allclose(found.saturation, jnp.log10(ratio), atol=1e-4)


def test_noise_is_that_of_two_halves(params, rows):
    found = look(toy, params, rows)
    grad = jax.grad(loss_of)
    first, second = (grad(params, some(rows, slice(i, None, 2))) for i in (0, 1))
    noise, signal = gradients.two_halves(first, second, ROWS)
    np.testing.assert_allclose((found.noise, found.signal), (noise, signal), rtol=1e-4)
    np.testing.assert_allclose(found.noise_scale, noise / signal, rtol=1e-3)


@pytest.mark.parametrize("field", ["heads", "hidden"])
def test_importance_is_the_finite_difference_of_each_rows_loss(params, rows, field):
    """Of a gate on one unit, for each row alone: E_rows |dL_row / d gate|."""
    found = look(toy, params, rows)
    open_ = signals.open_gates(toy, params, rows)
    ones, step = getattr(open_, field), 0.02
    loss = jax.jit(lambda row, g: loss_of(params, row, open_._replace(**{field: g})))

    def slope(row, layer, unit):
        up, down = (loss(row, ones.at[layer, 0, unit].add(s)) for s in (step, -step))
        return (up - down) / (2 * step)

    own = [some(rows, slice(i, i + 1)) for i in range(ROWS)]
    for layer, unit in [(0, 0), (0, 3), (1, 2), (2, 1)]:
        exact = np.mean([abs(slope(row, layer, unit)) for row in own])
        raw = getattr(found, f"{field}_raw")[layer, unit]
        np.testing.assert_allclose(raw, exact, rtol=0.02, atol=2e-4)
    norms = jnp.linalg.norm(getattr(found, field), axis=1)
    np.testing.assert_allclose(norms, 1, rtol=1e-5)


def test_a_layer_that_is_the_identity_shows_as_one(params, rows):
    blocks = dict(params["blocks"])
    for name in ("out", "down"):
        blocks[name] = blocks[name].at[1].set(0.0)
    found = look(toy, {**params, "blocks": blocks}, rows)
    assert abs(found.influence[1]) < 1e-6 < found.influence[0]
    assert not found.heads[1].any()
    assert not found.hidden[1].any()
    increase = removal(toy, {**params, "blocks": blocks}, rows)
    assert increase[1] == 0
    assert increase[0] != 0


def test_removal_is_the_loss_without_the_layer(params, rows):
    """As measured on parameters that the layer is cut out of."""
    found = removal(toy, params, rows)
    for layer in range(LAYERS):
        others = jnp.asarray([i for i in range(LAYERS) if i != layer])
        blocks = {name: leaf[others] for name, leaf in params["blocks"].items()}
        without = loss_of({**params, "blocks": blocks}, rows)
        exact = without - loss_of(params, rows)
        np.testing.assert_allclose(found[layer], exact, rtol=1e-4, atol=1e-5)


def test_an_odd_number_of_rows_is_an_error(params, rows):
    with pytest.raises(UserError, match="look: 5 rows: give an even number"):
        signals.look(toy, params, some(rows, slice(5)))


def test_the_mean_divides_means_and_normalises_anew(params, rows):
    one = look(toy, params, rows)
    two = look(toy, params, rows._replace(tokens=rows.targets, targets=rows.tokens))
    both = signals.mean([one, two])
    np.testing.assert_allclose(both.loss, (one.loss + two.loss) / 2, rtol=1e-6)
    ratio = (one.noise + two.noise) / (one.signal + two.signal)
    np.testing.assert_allclose(both.noise_scale, ratio, rtol=1e-5)
    raw = one.heads_raw + two.heads_raw
    scaled = raw / jnp.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(both.heads, scaled, rtol=1e-5)
    chex.assert_trees_all_equal_shapes_and_dtypes(both, one)


# The transformer


@pytest.fixture(scope="module")
def trained(program):
    """TINY's parameters with random outputs: fresh ones are zero and hide all else."""
    params = program.init(jax.random.key(1))
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(5)
    noise = [jnp.asarray(0.1 * rng.normal(size=x.shape), x.dtype) for x in leaves]
    return jax.tree.unflatten(tree, [x + n for x, n in zip(leaves, noise, strict=True)])


def test_the_transformer_is_read(program, trained, tiny, batch):
    found = look(program.inspect, trained, batch)
    chex.assert_tree_all_finite(found._replace(noise_scale=jnp.zeros(())))
    model = tiny.model
    assert found.heads.shape == (model.depth, model.heads)
    assert found.hidden.shape == (model.depth, model.hidden)
    loss = loss_of(trained, batch, inspect=program.inspect)
    np.testing.assert_allclose(found.loss, loss, rtol=1e-5)
    assert (found.influence > 0).all()
    assert (found.rank > 1).all()
    assert (found.rank <= model.width).all()


def test_gates_of_heads_lead_to_the_same_importance(program, trained, batch):
    found = look(program.inspect, trained, batch)
    gates = signals.open_gates(program.inspect, trained, batch)
    inspect = jax.jit(lambda g: program.inspect(trained, batch, g)[0].sum(1))
    move = lambda s: inspect(gates._replace(heads=gates.heads.at[1, 0, 0].add(s)))
    each = (move(0.02) - move(-0.02)) / 0.04 / (batch.targets != IGNORED).sum()
    np.testing.assert_allclose(found.heads_raw[1, 0], jnp.abs(each).sum(), rtol=0.02)


def test_a_removed_top_layer_is_the_shallower_model(program, trained, tiny, batch):
    found = removal(program.inspect, trained, batch)
    bottom = jax.tree.map(lambda x: x[:-1], trained["blocks"])
    shallow = make_model(dataclasses.replace(tiny.model, depth=tiny.model.depth - 1))
    losses = lambda forward, params: forward(params, batch)[0].sum()
    less = losses(shallow.forward, {**trained, "blocks": bottom})
    exact = (less - losses(program.forward, trained)) / (batch.targets >= 0).sum()
    np.testing.assert_allclose(found[-1], exact, rtol=1e-3, atol=1e-6)


def test_costs_in_forward_passes():
    """A look is a forward and a backward pass, maps and covariances; a removal is one
    forward pass per layer and one for comparison."""
    model = make_model(model_config("modern", "nano", vocab=4096))
    params = jax.eval_shape(model.init, jax.random.key(0))
    row, ids = jax.ShapeDtypeStruct((8, 128), jnp.int32), jnp.arange(8)
    batch = Batch(row, row, jax.ShapeDtypeStruct(ids.shape, ids.dtype), row)

    def flops(fn):
        made = count(jax.make_jaxpr(fn)(params, batch))
        return sum(cost.matmul for cost in made.total().values())

    forward = flops(lambda p, b: model.forward(p, b)[0])
    read = functools.partial(signals.look, model.inspect)
    removed = functools.partial(signals.removal, model.inspect)
    assert 3.0 <= flops(read) / forward < 3.2
    np.testing.assert_allclose(flops(removed) / forward, 5, rtol=1e-3)
