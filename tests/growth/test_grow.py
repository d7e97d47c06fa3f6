import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from uets_jax.build import build, initial_state
from uets_jax.config import replace_from_dict
from uets_jax.errors import UserError
from uets_jax.growth.grow import begun_anew, check_own, grow
from uets_jax.growth.operators import by_path, move_params
from uets_jax.growth.plan import moves
from uets_jax.growth.stages import Op, resized
from uets_jax.models.presets import model_config
from uets_jax.models.transformer import make_model
from uets_jax.optim.rewarm import OLD
from uets_jax.train import checkpoint, saver
from uets_jax.types import Gates

WIDER = [Op("hidden", 136, "new"), Op("heads", 4, "new"), Op("depth", 3, "identity")]
BACK = [
    Op("depth", 2, keep=((0, 1),)),
    Op("heads", 2, keep=((0, 1),) * 2),
    Op("hidden", 128, keep=(tuple(range(128)),) * 2),
]


@pytest.fixture(scope="module")
def config(tiny):
    """TINY with a guard and a rewarm of four steps."""
    growth = {"method": "fixed", "plan": "depth=3:0.5", "rewarm": 4}
    return replace_from_dict(tiny, {"growth": growth, "train": {"spike": 6.0}})


@pytest.fixture(scope="module")
def state(config):
    """As after seven steps: every number drawn."""
    rng = np.random.default_rng(0)

    def fill(x):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return x
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return jnp.full_like(x, 7)
        return jnp.asarray(rng.uniform(0.1, 1, x.shape), x.dtype)

    program = build(config)
    begun = jax.jit(functools.partial(initial_state, config, program))()
    full = jax.tree.map(fill, begun)
    warm = begun.parts["rewarm"]
    return full._replace(parts={**full.parts, "rewarm": warm})


@pytest.fixture(scope="module")
def wider(config, state):
    """(config, state) after three ops of one stage."""
    move = jax.jit(lambda s: grow(config, s, WIDER)[1])
    return grown_config(config, WIDER), move(state)


def grown_config(config, ops):
    model = functools.reduce(resized, ops, config.model)
    return dataclasses.replace(config, model=model)


def test_the_state_has_the_shapes_that_the_grown_program_has(wider, state):
    config, grown = wider
    like = jax.eval_shape(functools.partial(initial_state, config, build(config)))
    chex.assert_trees_all_equal_shapes_and_dtypes(grown, like)
    assert config.model.depth == 3
    assert config.model.heads == 4


def test_step_key_hypers_and_the_guard_are_carried(wider, state):
    _, grown = wider
    assert int(grown.step) == 7
    key = lambda s: jax.random.key_data(s.key)
    np.testing.assert_array_equal(key(grown), key(state))
    chex.assert_trees_all_equal(grown.hypers, state.hypers)
    chex.assert_trees_all_equal(grown.parts["guard"], state.parts["guard"])


def test_what_was_there_is_in_the_corner_of_what_is(wider, state):
    for part in ("params", "opt"):
        old = jax.tree_util.tree_leaves_with_path(getattr(state, part))
        new = jax.tree_util.tree_leaves(getattr(wider[1], part))
        for (_, was), now in zip(old, new, strict=True):
            corner = tuple(slice(n) for n in was.shape)
            np.testing.assert_array_equal(now[corner], was)


def test_growing_and_pruning_what_came_is_the_identity(wider, state):
    config, grown = wider
    back = jax.jit(lambda s: grow(config, s, BACK)[1])(grown)
    chex.assert_trees_all_equal(back.params, state.params)
    chex.assert_trees_all_equal(back.opt, state.opt)
    assert int(back.parts["guard"].seen) == 0  # the function was another one
    assert grown_config(config, BACK).model == state_config(config).model


def state_config(config):
    return grown_config(config, BACK)


def test_reset_begins_the_optimizer_anew_and_carries_the_parameters(config, state):
    ops, tx = WIDER[:1], build(config).tx
    move = jax.jit(lambda s: grow(config, s, ops, moments="reset")[1])
    found = move(state)
    chex.assert_trees_all_equal(found.opt, tx.init(found.params))
    was = state.params["blocks"]["mlp"]["up"]["w"]
    np.testing.assert_array_equal(
        found.params["blocks"]["mlp"]["up"]["w"][..., :128], was
    )


@pytest.mark.parametrize("moments", ["carry", "reset"])
def test_freezing_and_thawing_move_nothing(moments, config, state):
    for ops in ([Op("frozen", 1)], [Op("frozen", 1), Op("frozen", 0)]):
        after, found = grow(config, state, ops, moments=moments)
        assert after == grown_config(config, ops)
        assert begun_anew(config, ops) == ()
        chex.assert_trees_all_equal(found, state)


# warming up


def born(state, *path):
    found = state.parts["rewarm"].born
    for name in path:
        found = found[name]
    return [np.asarray(steps) for steps in found]


def test_ops_of_one_stage_keep_each_others_entries(wider):
    layer, width, unit = born(wider[1], "blocks", "mlp", "up", "w")
    np.testing.assert_array_equal(layer, [OLD, OLD, 7])
    assert {*width} == {OLD}
    np.testing.assert_array_equal(np.flatnonzero(unit == 7), np.arange(128, 136))
    _, _, head, _ = born(wider[1], "blocks", "attention", "query", "w")
    np.testing.assert_array_equal(head, [OLD, OLD, 7, 7])


def test_what_was_warming_up_goes_on_after_a_later_stage(wider):
    config, grown = wider
    later = grown._replace(step=grown.step + 2)
    op = Op("hidden", 144, "new")
    moved = jax.eval_shape(lambda s: grow(config, s, [op])[1], later)
    assert moved.params["blocks"]["mlp"]["up"]["w"].shape == (3, 32, 144)
    after = jax.jit(lambda s: grow(config, s, [op])[1].parts["rewarm"])(later)
    state = later._replace(parts={**later.parts, "rewarm": after})
    layer, _, unit = born(state, "blocks", "mlp", "up", "w")
    np.testing.assert_array_equal(layer, [OLD, OLD, 7])
    np.testing.assert_array_equal(np.flatnonzero(unit == 7), np.arange(128, 136))
    np.testing.assert_array_equal(np.flatnonzero(unit == 9), np.arange(136, 144))


def test_only_fresh_entries_begin_slowly(wider):
    config, grown = wider
    part, ones = build(config).rewarm, jax.tree.map(jnp.ones_like, grown.params)
    warm = jax.jit(part.apply)
    for age, share in ((0, 0.25), (1, 0.5), (3, 1.0), (9, 1.0)):
        scaled, after = warm(grown.parts["rewarm"], ones, grown.step + age)
        chex.assert_trees_all_equal(after, grown.parts["rewarm"])
        up = scaled["blocks"]["mlp"]["up"]["w"]
        np.testing.assert_array_equal(up[:2, :, :128], 1)
        np.testing.assert_array_equal(up[:, :, 128:], share)
        np.testing.assert_array_equal(up[2], share)
        np.testing.assert_array_equal(scaled["embed"]["table"], 1)


def test_a_grown_state_survives_save_and_restore(wider, tmp_path):
    _, grown = wider
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
    path = saver.save(tmp_path, grown, {"step": 7})
    found, _ = checkpoint.load(path, lambda record: jax.tree.map(like, grown))
    chex.assert_trees_all_equal(found, grown)


# own parts


@pytest.mark.parametrize("own", ["init", "forward", "logits", "inspect"])
def test_an_own_model_is_refused(own, config, state):
    with pytest.raises(UserError, match=f"own '{own}' can't be grown"):
        grow(config, state, WIDER, {own: print})
    with pytest.raises(UserError, match=r"growth\.method none"):
        check_own({own: print, "tx": optax.sgd(1.0)})


def test_an_own_optax_transformation_is_grown(config):
    own = {"tx": optax.adam(1e-2)}
    program = build(config, own)

    def both():
        state = initial_state(config, program)
        opt = optax.tree.map_params(program.tx, jnp.ones_like, state.opt)
        return grow(config, state._replace(opt=opt), WIDER[:1], own)[1]

    opt = jax.jit(both)().opt[0]
    up = lambda tree: np.asarray(tree["blocks"]["mlp"]["up"]["w"])
    old = np.tile(np.arange(136) < 128, (2, 32, 1))
    np.testing.assert_array_equal(up(opt.mu), old)
    np.testing.assert_array_equal(up(opt.nu), 1.0)  # the mean of ones


def test_what_begins_anew_is_named_before_anything_is_done(config):
    per_head = optax.GradientTransformation(
        lambda params: {
            "h": jnp.zeros(params["blocks"]["attention"]["output"]["w"].shape[1])
        },
        lambda updates, state, params=None: (updates, state),
    )
    assert begun_anew(config, WIDER, {"tx": per_head}) == ("opt/h",)
    assert begun_anew(config, WIDER) == ()
    assert begun_anew(config, [Op("memory_rows", 8), Op("experts", 2)]) == ()


@pytest.mark.parametrize("op", [Op("depth", 2), Op("hidden", 8), Op("width", 33)])
def test_an_op_that_can_not_be_done_is_refused(op, config, state):
    with pytest.raises(UserError, match=f"{op}"):
        grow(config, state, [op])


# pruned models

SHRINK = {
    "modern": [
        Op("heads", 1, keep=((1,), (1,))),
        Op("hidden", 3, keep=((0, 2, 5), (1, 2, 127))),
        Op("depth", 1, keep=((0,),)),
    ],
    "grouped": [Op("heads", 4, keep=((0, 1, 4, 5),) * 2)],
    "apart": [Op("heads", 1, keep=((1,), (0,)))],
}


@pytest.mark.parametrize(
    ("kind", "op"), [(kind, op) for kind, ops in SHRINK.items() for op in ops], ids=str
)
def test_a_pruned_model_is_the_model_with_those_gates_shut(kind, op, batch):
    groups = {"heads": 6, "kv_heads": 3, "head_dim": 8}
    kinds = {"grouped": groups, "apart": {"value_residual": False}}
    fields = kinds.get(kind, {})
    model = model_config("modern", "tiny", vocab=64, **fields)
    rng = np.random.default_rng(0)
    draw = lambda x: jnp.asarray(0.2 * rng.normal(size=x.shape), x.dtype)
    params = jax.tree.map(
        draw, jax.eval_shape(make_model(model).init, jax.random.key(0))
    )
    gates = Gates(
        *(np.ones((2, 1, n), np.float32) for n in (model.heads, model.hidden))
    )
    for layer in range(2):
        if op.field == "depth":
            shut = layer not in op.keep[0]
            gates.heads[layer] -= shut
            gates.hidden[layer] -= shut
        else:
            out = [
                i for i in range(getattr(model, op.field)) if i not in op.keep[layer]
            ]
            getattr(gates, op.field)[layer, 0, out] = 0
    open_gates = jax.tree.map(jnp.asarray, gates)
    expected = jax.jit(make_model(model).inspect)(params, batch, open_gates)[0]
    after = resized(model, op)
    fresh = jax.tree.map(
        draw, jax.eval_shape(make_model(after).init, jax.random.key(0))
    )
    less = move_params(moves(model, op), params, fresh, jax.random.key(1))
    found = jax.jit(make_model(after).forward)(less, batch)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2e-6)
    assert sum(x.size for x in by_path(less).values()) < sum(
        x.size for x in by_path(params).values()
    )
