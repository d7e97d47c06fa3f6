import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import jaxprs_in_params

from uets_jax.errors import UserError
from uets_jax.measure.scopes import (
    CATEGORIES,
    branch,
    branch_of,
    category,
    category_of,
    trips,
    trips_of,
    without_control,
)

X = jnp.ones(3)


def scoring(x):
    with category("scoring"):
        return jnp.sin(x).sum()


def sines(jaxpr):
    """The name stacks of all sines, and of the cosines that grad makes of them."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in ("sin", "cos"):
            yield eqn.source_info.name_stack
        for inner in jaxprs_in_params(eqn.params):
            yield from sines(getattr(inner, "jaxpr", inner))


@pytest.mark.parametrize(
    "function",
    [
        scoring,
        jax.grad(scoring),
        jax.vmap(scoring, in_axes=(0,)),
        jax.grad(lambda x: jax.vmap(scoring)(x[:, None]).sum()),
        jax.value_and_grad(lambda x: jax.vmap(jax.value_and_grad(scoring))(x)[0].sum()),
        lambda x: jax.jvp(scoring, (x,), (x,)),
    ],
)
def test_a_category_survives_transformations(function):
    stacks = [*sines(jax.make_jaxpr(function)(X).jaxpr)]
    assert stacks
    assert {category_of(stack, "probe") for stack in stacks} == {"scoring"}
    assert {category_of(str(stack), "probe") for stack in stacks} == {"scoring"}


def test_the_innermost_category_wins():
    def nested(x):
        with category("probe"), jax.named_scope("a"), category("growth"):
            return jnp.sin(x)

    [stack] = sines(jax.make_jaxpr(nested)(X).jaxpr)
    assert category_of(stack) == "growth"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "probe"),
        ("transpose(jvp(category.optimizer))/mul", "optimizer"),
        ("category.optimizer/vmap(category.statistics)", "statistics"),
        ("jit(f)/category.scoring/transpose(jvp(MLP))", "scoring"),
        ("category.unheard_of/category.scorings", "probe"),
        ("subcategory.scoring/my.category.scoring", "probe"),
    ],
)
def test_the_text_of_a_name_stack(text, expected):
    assert category_of(text, "probe") == expected


def test_what_stands_nowhere_is_forward_and_backward():
    assert category_of("") == CATEGORIES[0] == "forward_backward"


def test_a_scope_adds_nothing_to_the_program():
    plain = jax.make_jaxpr(lambda x: jnp.sin(x).sum())(X)
    assert str(jax.make_jaxpr(scoring)(X)) == str(plain)


def test_a_branch_is_a_cond():
    choose = lambda p: branch("refresh", p, jnp.sin, jnp.cos, X)
    assert jnp.allclose(choose(True), jnp.sin(X))
    assert jnp.allclose(jax.jit(choose)(False), jnp.cos(X))
    [eqn] = [
        e for e in jax.make_jaxpr(choose)(True).jaxpr.eqns if e.primitive.name == "cond"
    ]
    assert branch_of(eqn.source_info.name_stack) == "refresh"


def test_a_loop_knows_its_trips():
    def loop(n):
        with trips(12):
            return jax.lax.fori_loop(0, n, lambda i, x: x * 2, X)

    eqns = jax.make_jaxpr(loop)(3).jaxpr.eqns
    assert [
        trips_of(e.source_info.name_stack) for e in eqns if e.primitive.name == "while"
    ] == [12]


def test_the_first_cond_or_loop_uses_the_scope_up():
    stack = "category.scoring/branch.refresh/vmap(trips.12)"
    assert (branch_of(stack), trips_of(stack)) == ("refresh", 12)
    inner = without_control(stack)
    assert (branch_of(inner), trips_of(inner)) == (None, None)
    assert category_of(inner) == "scoring"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: category("scorin"), "did you mean 'scoring'"),
        (lambda: branch("a/b", True, jnp.sin, jnp.cos, X), "'a/b'"),
        (lambda: trips(-1), "-1"),
        (lambda: trips(True), "True"),
    ],
)
def test_bad_names_and_numbers_are_refused(call, words):
    with pytest.raises(UserError, match=words):
        call()
