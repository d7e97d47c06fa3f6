import dataclasses

import jax
import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.growth.operators import _number
from uets_jax.growth.plan import FRESH, is_exact, moves, plan
from uets_jax.growth.stages import Op, resized
from uets_jax.models.axes import names
from uets_jax.models.presets import model_config
from uets_jax.models.transformer import make_model

MODEL = model_config("modern", "tiny", vocab=64)  # depth 2, width 32, 2 heads
GROUPED = dataclasses.replace(MODEL, heads=4, kv_heads=2, head_dim=8)
ODD = ((0, 2, 5), (1, 2, 3))
OPS = [
    (MODEL, Op("depth", 4, "identity")),
    (MODEL, Op("depth", 4, "random")),
    (MODEL, Op("depth", 6, "stack")),
    (MODEL, Op("depth", 4, "interleave")),
    (MODEL, Op("depth", 3, "middle")),
    (MODEL, Op("depth", 1, keep=((0,),))),
    (MODEL, Op("heads", 3, "new")),
    (GROUPED, Op("heads", 6, "split")),
    (GROUPED, Op("heads", 2, keep=((0, 1), (2, 3)))),
    (MODEL, Op("hidden", 200, "split")),
    (MODEL, Op("hidden", 3, keep=ODD)),
    (MODEL, Op("width", 96)),
    (MODEL, Op("experts", 4)),
    (MODEL, Op("memory_rows", 16)),
    (MODEL, Op("frozen", 1)),
]


def leaves(model):
    found = jax.eval_shape(make_model(model).init, jax.random.key(0))
    return jax.tree_util.tree_leaves_with_path(found)


@pytest.mark.parametrize(("model", "op"), OPS, ids=lambda x: str(x)[:20])
def test_every_leaf_of_the_new_model_has_a_move_of_its_shape(model, op):
    after, how = resized(model, op), moves(model, op)
    old = {names(path): x.shape for path, x in leaves(model)}
    new = {names(path): x.shape for path, x in leaves(after)}
    assert how.keys() == new.keys()
    for path, move in how.items():
        if move.old is None:
            assert path not in old
            continue
        shape = list(old[move.old])
        if move.insert is not None:
            shape.insert(move.insert, 1)
        for axis, along in move.axes:
            source = np.asarray(along.source)
            assert source.max() < shape[axis]
            assert source.min() >= FRESH
            shape[axis] = source.shape[-1]
            for each in (along.scale, along.grad, along.sign, along.new):
                assert len(each) in (0, shape[axis])
        assert tuple(shape) == new[path]


def test_a_plan_gives_the_config_after_it_and_nothing_else(tiny):
    op = Op("depth", 3, "identity")
    config, how = plan(tiny, op)
    assert config.model.depth == 3
    assert dataclasses.replace(config, model=tiny.model) == tiny
    assert how == moves(tiny.model, op)


def source(model, op, path="blocks/mlp/up/w", axis=0):
    return dict(moves(model, op)[tuple(path.split("/"))].axes)[axis].source


def test_layers_are_copied_in_the_order_that_their_names_say():
    three = dataclasses.replace(MODEL, depth=3)
    assert source(MODEL, Op("depth", 6, "stack")) == (0, 1, 0, 1, 0, 1)
    assert source(MODEL, Op("depth", 6, "interleave")) == (0, 0, 0, 1, 1, 1)
    assert source(three, Op("depth", 5, "middle")) == (0, 1, 1, 1, 2)
    assert source(three, Op("depth", 5, "identity")) == (0, 1, 2, 2, 2)
    assert source(three, Op("depth", 5, "random")) == (0, 1, 2, FRESH, FRESH)


def test_new_heads_come_last_in_their_group():
    query = "blocks/attention/query/w"
    assert source(GROUPED, Op("heads", 6, "new"), query, 2) == (0, 1, -1, 2, 3, -1)
    assert source(GROUPED, Op("heads", 6, "split"), query, 2) == (0, 1, 0, 2, 3, 2)
    assert source(MODEL, Op("heads", 4, "split"), query, 2) == (0, 1, 0, 1)


def test_shared_keys_stay_as_they_are():
    how = moves(GROUPED, Op("heads", 6, "split"))
    assert how["blocks", "attention", "key", "w"].axes == ()


def test_halves_keep_their_sum():
    [(_, down)] = moves(MODEL, Op("hidden", 200, "split"))[
        "blocks", "mlp", "down", "w"
    ].axes
    total, signs = np.zeros(128), np.zeros(128)
    np.add.at(total, np.asarray(down.source), down.scale)
    np.add.at(signs, np.asarray(down.source), down.sign)
    np.testing.assert_array_equal(total, 1)
    np.testing.assert_array_equal(signs, 0)
    assert sum(map(abs, down.sign)) == 2 * 72


@pytest.mark.parametrize("field", ["depth", "heads", "hidden"])
def test_without_a_way_the_first_one_is_taken_and_it_is_exact(field):
    size, first = {"depth": 4, "heads": 4, "hidden": 200}[field], "new"
    named = Op(field, size, "identity" if field == "depth" else first)
    assert moves(MODEL, Op(field, size)) == moves(MODEL, named)
    assert is_exact(Op(field, size), MODEL)


def test_experts_are_exact_where_none_can_be_full():
    op = Op("experts", 4)
    assert not is_exact(op, MODEL)
    assert is_exact(op, dataclasses.replace(MODEL, capacity=0.0))


def test_freezing_and_thawing_are_exact_and_move_nothing():
    frozen = dataclasses.replace(MODEL, frozen=1)
    for model, op in ((MODEL, Op("frozen", 1)), (frozen, Op("frozen", 0))):
        assert is_exact(op, model)
        assert all(move.axes == () for move in moves(model, op).values())


def test_pruning_is_never_exact():
    assert not is_exact(Op("depth", 1, "identity", ((0,),)), MODEL)
    assert not is_exact(Op("hidden", 3, keep=ODD), MODEL)


@pytest.mark.parametrize(
    ("model", "op", "complaint"),
    [
        (MODEL, Op("depth", 4, "stak"), "did you mean 'stack'"),
        (MODEL, Op("heads", 4, "stack"), "choose from new, split"),
        (MODEL, Op("width", 64, "split"), "there is but one way"),
        (MODEL, Op("layers", 4), "choose from|did you mean"),
        (MODEL, Op("depth", 1), "for each of 1, the 1 of 2"),
        (MODEL, Op("hidden", 3), "for each of 2, the 3 of 128"),
        (MODEL, Op("hidden", 3, keep=ODD[:1]), "for each of 2"),
        (MODEL, Op("hidden", 3, keep=((0, 1, 1), (0, 1, 2))), "rising"),
        (MODEL, Op("hidden", 3, keep=((2, 1, 0), (0, 1, 2))), "rising"),
        (MODEL, Op("hidden", 3, keep=((0, 1, 128), (0, 1, 2))), "rising"),
        (GROUPED, Op("heads", 2, keep=((0, 2), (0, 1))), "whole groups of 2"),
    ],
)
def test_an_op_that_says_too_little_is_refused(model, op, complaint):
    with pytest.raises(UserError, match=complaint):
        moves(model, op)


def test_the_noise_of_no_two_leaves_that_have_some_is_the_same():
    for op in (Op("width", 64), Op("heads", 4, "split"), Op("hidden", 200, "split")):
        kinds = (MODEL, model_config("gpt2", "tiny", vocab=64, activation="swiglu"))
        for model in kinds:
            split = [
                _number(path)
                for path, move in moves(model, op).items()
                if any(any(along.sign) for _, along in move.axes)
            ]
            assert split
            assert len(split) == len({*split})
