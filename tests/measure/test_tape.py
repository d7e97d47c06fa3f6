import jax
import jax.numpy as jnp
import pytest

from uets_jax.measure.tape import Tape, nbytes

X = jax.ShapeDtypeStruct((4, 6), jnp.float32)


def tape(function, *shapes, unwritten=()):
    """The tape of a function, and the numbers of its results."""
    jaxpr = jax.make_jaxpr(function)(*shapes).jaxpr
    made = Tape(frozenset(unwritten))
    return made, made.play(jaxpr, [made.new(v.aval) for v in jaxpr.invars])


def names(function, *shapes):
    return [op.name for op in tape(function, *shapes)[0].ops]


def test_bytes_of_arrays_and_keys():
    assert nbytes((3, 5), jnp.dtype("bfloat16")) == 30
    assert nbytes((), jnp.dtype("float32")) == 4
    assert nbytes((2,), jax.random.key(0).dtype) == 16


def test_calls_are_written_out_and_views_are_left_out():
    inner = jax.checkpoint(jax.jit(lambda x: jnp.exp(x).reshape(6, 4)))
    assert names(lambda x: inner(inner(x).reshape(4, 6)), X) == ["exp", "exp"]


def test_a_view_is_the_value_itself():
    made, [result] = tape(lambda x: jnp.exp(x)[None].reshape(-1), X)
    assert made.ops[-1].writes == (result,)


def test_one_jaxpr_called_twice_has_values_of_its_own():
    twice = jax.jit(jnp.exp)
    made, _ = tape(lambda x: twice(twice(x)), X)
    first, second = made.ops
    assert second.reads == first.writes
    assert second.writes != first.writes


@pytest.mark.parametrize(
    ("equation", "copies"),
    [("ij,jk->ik", 0), ("ji,jk->ik", 1), ("ij,kj->ik", 1), ("ji,kj->ik", 2)],
)
def test_a_matmul_copies_operands_whose_axes_are_in_another_order(equation, copies):
    shapes = {"ij": (4, 6), "ji": (6, 4), "jk": (6, 5), "kj": (5, 6)}
    left, right = equation.split("->")[0].split(",")
    operands = [jax.ShapeDtypeStruct(shapes[k], jnp.float32) for k in (left, right)]
    dimensions = (((left.index("j"),), (right.index("j"),)), ((), ()))
    found = names(lambda a, b: jax.lax.dot_general(a, b, dimensions), *operands)
    assert found == ["relayout"] * copies + ["dot_general"]


def test_adding_to_a_scatter_into_zeros_is_a_scatter_into_the_other():
    made, _ = tape(lambda x: x * 2 + jnp.zeros((4, 6)).at[1, 2].add(3.0), X)
    last, double = made.ops[-1], next(op for op in made.ops if op.name == "mul")
    assert last.name.startswith("scatter")
    assert last.reads[0] == double.writes[0]


def test_a_loop_knows_its_carry_slices_and_stacked_outputs():
    turn = lambda c, x: (c + x.sum(), x * c)
    made, _ = tape(lambda x: jax.lax.scan(turn, 1.0, x), X)
    [scan] = made.ops
    [body] = scan.turns
    assert len(scan.carries) == len(body.carry) == len(body.kept) == 1
    assert [body.tape.sizes[v] for v in body.slices] == [24]
    assert [made.sizes[v] for v in scan.writes] == [4, 96]


def test_a_while_and_both_branches_of_a_cond_have_turns():
    made, _ = tape(
        lambda x: jax.lax.while_loop(lambda y: y.sum() < 9, lambda y: y + x, x), X
    )
    assert [len(op.turns) for op in made.ops] == [1]
    assert [op.name for op in made.ops[0].turns[0].tape.ops] == ["add"]
    branches = lambda x: jax.lax.cond(x[0, 0] > 0, jnp.exp, jnp.sin, x)
    cond = tape(branches, X)[0].ops[-1]
    inside = {op.name for turn in cond.turns for op in turn.tape.ops}
    assert inside == {"exp", "sin"}


def test_unwritten_values_have_no_bytes():
    made, _ = tape(lambda x: jnp.exp(x) @ jnp.ones((6, 2)), X, unwritten=[24])
    assert set(made.sizes) >= {0, 48, 32}
    assert 96 not in made.sizes


def test_bfloat16_has_four_bytes_where_it_is_widened():
    half = jax.ShapeDtypeStruct((4, 6), jnp.bfloat16)
    turns = lambda x: jax.lax.fori_loop(0, 3, lambda i, y: y * 2, x).astype(jnp.int8)
    for widened, size in ((False, 48), (True, 96)):
        made = Tape(widened=widened)
        jaxpr = jax.make_jaxpr(turns)(half).jaxpr
        made.play(jaxpr, [made.new(v.aval) for v in jaxpr.invars])
        [loop] = [op for op in made.ops if op.turns]
        inside = loop.turns[0].tape.sizes
        assert {size, 24} <= {*made.sizes} <= {size, 24, 4}
        assert size in inside
