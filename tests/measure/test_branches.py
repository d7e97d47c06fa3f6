import jax
import jax.numpy as jnp
import pytest
from jax import lax

from uets_jax.errors import UserError
from uets_jax.measure.branches import Branch, Count
from uets_jax.measure.jaxpr import count
from uets_jax.measure.scopes import branch, category
from uets_jax.measure.work import Cost

X, W = jnp.full((8, 16), 0.1), jnp.full((16, 16), 0.1)
PRODUCT = 2 * 8 * 16 * 16


def counted(function, *args):
    return count(jax.make_jaxpr(function)(*args))


def refresh(predicate, x):
    """One product or three, and one that always runs."""
    with category("statistics"):
        y = branch("refresh", predicate, lambda x: x @ W @ W @ W, lambda x: x @ W, x)
    return y @ W


def test_a_counted_branch_is_charged_by_its_arms():
    found = counted(refresh, True, X)
    assert {k: c.matmul for k, c in found.always.items() if c.matmul} == {
        "forward_backward": PRODUCT
    }
    false, true = found.branches["refresh"].arms
    assert (false["statistics"].matmul, true["statistics"].matmul) == (
        PRODUCT,
        3 * PRODUCT,
    )
    for taken in (0, 3, 10):
        costs = found.total({"refresh": taken}, calls=10)
        assert costs["statistics"].matmul == (3 * taken + 10 - taken) * PRODUCT
        assert costs["forward_backward"].matmul == 10 * PRODUCT


def test_a_branch_in_a_scan_is_charged_per_executed_arm():
    def program(flags, x):
        return lax.scan(lambda c, p: (refresh(p, c), None), x, flags)[0]

    found = counted(program, jnp.zeros(5, bool), X)
    assert found.branches["refresh"].times == 5
    costs = found.total({"refresh": 7}, calls=2)
    assert costs["statistics"].matmul == (3 * 7 + 3) * PRODUCT
    assert costs["forward_backward"].matmul == 10 * PRODUCT


def test_a_branch_inside_an_arm_runs_when_the_arm_does():
    def program(p, q, x):
        inner = lambda x: lax.scan(
            lambda c, _: (branch("inner", q, lambda c: c @ W, lambda c: c, c), None),
            x @ W,
            length=4,
        )[0]
        return branch("outer", p, inner, lambda x: x, x)

    found = counted(program, True, True, X)
    assert found.branches["inner"].holder == ("outer", 1)
    cost = found.total({"outer": 3, "inner": 10}, calls=5)["forward_backward"]
    assert cost.matmul == (3 + 10) * PRODUCT
    with pytest.raises(UserError, match="inner: 13 of 12 runs"):
        found.total({"outer": 3, "inner": 13}, calls=5)


def test_a_branch_and_its_gradient_are_taken_together():
    both = jax.value_and_grad(lambda x, p: refresh(p, x).sum())
    found = counted(both, X, True)
    costs = found.total({"refresh": 2}, calls=3)
    assert costs["statistics"].matmul == (2 * 6 + 2) * PRODUCT


def test_a_name_stands_for_one_predicate():
    def program(p, x):
        y = lax.scan(lambda c, _: (refresh(p, c), None), x, length=2)[0]
        return refresh(p, y)

    with pytest.raises(UserError, match=r"refresh.*a name of its own"):
        counted(program, True, X)


@pytest.mark.parametrize(
    ("taken", "words"),
    [
        ({}, "refresh: say how often"),
        ({"refesh": 1}, "refresh: say how often"),
        ({"refresh": 3}, "3 of 2 runs"),
        ({"refresh": -1}, "-1 of 2 runs"),
    ],
)
def test_wrong_counters_are_refused(taken, words):
    with pytest.raises(UserError, match=words):
        counted(refresh, True, X).total(taken, calls=2)


def test_counts_add_and_repeat_with_their_branches():
    arms = {"probe": Cost(1)}, {"probe": Cost(5)}
    one = Count({"probe": Cost(100)}, {"a": Branch(1, None, arms)})
    inner = Branch(2, ("a", 1), arms)
    both = one + Count({"policy": Cost(7)}, {"a": one.branches["a"], "b": inner})
    assert both.always == {"probe": Cost(100), "policy": Cost(7)}
    assert both.branches["a"].arms[1] == {"probe": Cost(10)}
    thrice = both * 3
    assert thrice.branches["a"].times == 3
    assert thrice.branches["b"] == inner  # it runs when its holder does
    total = thrice.total({"a": 2, "b": 1})
    assert total["probe"] == Cost(3 * 100 + (2 + 2 * 10) + (3 * 1 + 5))
    assert total["policy"] == Cost(21)


def test_the_gradient_of_a_branch_with_other_residuals_is_counted():
    matrix = jax.ShapeDtypeStruct((4, 4), jnp.float32)
    square = lambda x: branch("b", x.sum() > 0, lambda y: y @ y @ y, lambda y: y, x)
    found = count(jax.make_jaxpr(jax.value_and_grad(lambda x: square(x).sum()))(matrix))
    one = 2 * 4**3
    matmuls = lambda taken: sum(c.matmul for c in found.total({"b": taken}).values())
    assert matmuls(0) == 0
    assert matmuls(1) == (2 + 4) * one
    assert sum(c.matmul for c in found.most().values()) == 6 * one


def test_the_most_is_the_costlier_arm_of_every_branch():
    matrix = jax.ShapeDtypeStruct((4, 4), jnp.float32)

    def inner(x):
        return branch("inner", x.sum() > 1, lambda y: y @ y, lambda y: y, x)

    def body(x, _):
        return branch("outer", x.sum() > 0, inner, lambda y: y @ y @ y, x), None

    run = lambda x: jax.lax.scan(body, x, length=5)[0]
    found = count(jax.make_jaxpr(run)(matrix)).most()
    assert sum(c.matmul for c in found.values()) == 5 * (2 + 1) * 2 * 4**3
