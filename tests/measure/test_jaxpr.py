import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import PartitionSpec as P

from uets_jax.errors import UserError
from uets_jax.evaluate.generate import compile_sampler
from uets_jax.evaluate.perplexity import compile_losses
from uets_jax.measure.flops import optimizer_flops, parameters, step_flops
from uets_jax.measure.jaxpr import count
from uets_jax.measure.scopes import branch, category, trips
from uets_jax.measure.work import Cost

X, W = jnp.full((8, 16), 0.1), jnp.full((16, 16), 0.1)
PRODUCT = 2 * 8 * 16 * 16


def counted(function, *args):
    return count(jax.make_jaxpr(function)(*args))


def of(function, *args) -> Cost:
    """All that always runs, in one sum."""
    return sum(counted(function, *args).total().values(), start=Cost())


def dot(x, w):
    return x @ w


def chain(x, w, times):
    return lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, length=times)[0]


# Nested programs


@pytest.mark.parametrize(
    ("function", "products"),
    [
        (jax.jit(jax.jit(dot)), 1),
        (jax.checkpoint(dot), 1),
        (lambda x, w: chain(x, w, 5), 5),
        (lambda x, w: chain(chain(x, w, 2), w, 3), 5),
        (lambda x, w: lax.scan(lambda c, _: (chain(c, w, 3), 0), x, length=4)[0], 12),
        (lambda x, w: lax.map(lambda row: row @ w, x), 1),
        (lambda x, w: lax.fori_loop(0, 7, lambda i, c: c @ w, x), 7),
        (lambda x, w: jax.vjp(dot, x, w)[1](x), 2),
        (lambda x, w: (jax.vjp(dot, x, w)[1](x), dot(x, w)), 3),
        (lambda x, w: chain(x, w, 0), 0),
        (lambda x, w: (dot(x, w), x)[1], 0),
        (lambda x, w: jax.vmap(dot, (0, None))(x[:, None], w), 1),
    ],
)
def test_matmuls_of_nested_programs(function, products):
    assert of(function, X, W).matmul == products * PRODUCT


def test_remat_pays_the_forward_pass_again():
    layer = lambda x, w: jnp.tanh(jnp.tanh(x @ w) @ w).sum()
    plain, again = map(jax.value_and_grad, (layer, jax.checkpoint(layer)))
    assert of(plain, X, W).matmul == 4 * PRODUCT  # W gets no gradient
    assert of(again, X, W).matmul == 6 * PRODUCT
    assert of(again, X, W).transcendental == 2 * of(plain, X, W).transcendental


def test_custom_derivatives_cost_what_they_do():
    @jax.custom_vjp
    def f(x, w):
        return x @ w

    def forward(x, w):
        return x @ w @ w, (x, w)

    def backward(saved, ct):
        _, w = saved
        return ct @ w @ w @ w, jnp.zeros_like(w)

    f.defvjp(forward, backward)
    assert of(f, X, W).matmul == PRODUCT
    both = lambda x, w: jax.vjp(f, x, w)[1](x)[0]
    assert of(both, X, W).matmul == 3 * PRODUCT
    value_too = lambda x, w: (lambda y, g: (y, g(x)[0]))(*jax.vjp(f, x, w))
    assert of(value_too, X, W).matmul == 5 * PRODUCT

    @jax.custom_jvp
    def g(x, w):
        return x @ w

    g.defjvp(lambda primals, tangents: (dot(*primals), tangents[0] @ primals[1]))
    assert of(g, X, W).matmul == PRODUCT
    assert of(lambda x, w: jax.jvp(g, (x, w), (x, w)), X, W).matmul == 2 * PRODUCT


@pytest.mark.parametrize("replicated", [False, True])
def test_shard_map_is_charged_on_every_device(replicated):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = P() if replicated else P("data")
    body = lambda x, w: lax.psum(x @ w, "data")
    spread = jax.shard_map(body, mesh=mesh, in_specs=(rows, P()), out_specs=P())
    cost = of(spread, X, W)
    assert cost.matmul == PRODUCT * (8 if replicated else 1)
    assert cost.elementwise == 8 * (8 if replicated else 1) * 16


def test_part_of_a_mesh_is_charged_for_its_own_axes():
    axes = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((4, 2), ("data", "tensor"), axis_types=axes)
    spread = jax.shard_map(
        dot,
        mesh=mesh,
        in_specs=(P("data"), P()),
        out_specs=P("data"),
        axis_names={"data"},
    )
    assert of(jax.jit(spread), X, W).matmul == PRODUCT


def test_a_linear_solve_is_charged_for_its_solution_alone():
    solve = lambda b: lax.custom_linear_solve(
        lambda v: W @ v, b, lambda matvec, b: W @ (W @ b), symmetric=True
    )
    assert of(solve, X[0]).matmul == 2 * 2 * 16 * 16


def test_only_this_platforms_arm_is_charged():
    choose = lambda x: lax.platform_dependent(
        x, cpu=lambda x: x @ W, default=lambda x: x @ W @ W
    )
    assert of(choose, X).matmul == PRODUCT


@settings(max_examples=20)
@given(st.integers(0, 9), st.integers(1, 5), st.integers(1, 5), st.booleans())
def test_a_scan_costs_n_times_its_body(n, rows, columns, grad):
    """For values and for gradients, whatever the shapes."""
    x, w = jnp.ones((rows, columns)), jnp.ones((columns, columns))

    def body(c, w):
        with category("probe"):
            c = jnp.exp(c @ w)
        return jnp.sort(c, axis=0)

    once = jax.grad(lambda c, w: body(c, w).sum()) if grad else body
    many = lambda c, w: lax.scan(lambda c, _: (once(c, w), None), c, length=n)[0]
    found = counted(many, x, w)
    assert found == n * counted(once, x, w)
    assert found.total(calls=3) == (3 * found).total()


# Categories


def test_nested_programs_inherit_and_the_innermost_wins():
    @jax.jit
    def shared(x):
        def step(c, _):
            with category("growth"):
                d = c @ W
            return jnp.tanh(c) + d, None

        return lax.scan(step, x @ W @ W, length=3)[0]

    def program(x):
        with category("scoring"):
            y = shared(x)
        with category("probe"):
            return shared(y) @ W

    costs = counted(program, X).total()
    matmuls = {name: cost.matmul for name, cost in costs.items()}
    assert matmuls == {
        "scoring": 2 * PRODUCT,
        "growth": 6 * PRODUCT,
        "probe": 3 * PRODUCT,
    }


def test_a_gradient_is_charged_to_the_category_of_its_forward_pass():
    def loss(w):
        with category("scoring"):
            layer = jax.checkpoint(lambda c: jnp.tanh(c @ w))
            y = lax.scan(lambda c, _: (layer(c), None), X, length=3)[0]
        return (y @ w).sum()

    costs = counted(jax.grad(loss), W).total()
    assert costs["scoring"].matmul == 3 * 4 * PRODUCT
    assert costs["forward_backward"].matmul == 2 * PRODUCT


def test_what_stands_in_no_category_goes_to_the_default():
    assert [*counted(dot, X, W).total()] == ["forward_backward"]
    jaxpr = jax.make_jaxpr(dot)(X, W)
    assert [*count(jaxpr, "evaluation").total()] == ["evaluation"]


# Conditions


def test_equal_arms_need_no_counter():
    choose = lambda p, x: lax.cond(p, lambda x: x @ W, lambda x: x @ W.T, x)
    assert of(choose, True, X).matmul == PRODUCT
    switch = lambda i, x: lax.switch(i, [jnp.sin, jnp.cos, jnp.tanh], x)
    assert of(switch, 1, X).transcendental == X.size


def test_a_branch_within_a_branch_needs_its_own_name():
    inner = lambda p, x: lax.cond(p, lambda x: x @ W, lambda x: x, x)
    program = lambda p, x: branch("a", p, lambda x: inner(p, x), lambda x: x, x)
    with pytest.raises(UserError, match=r"cond in .*scopes\.branch"):
        counted(program, True, X)


# What can't be counted


def test_an_unequal_cond_names_the_mend():
    choose = lambda p, x: lax.cond(p, lambda x: x @ W, lambda x: x, x)
    scoped = lambda p, x: under(category("scoring"), jax.jit(choose), p, x)
    with pytest.raises(UserError, match=r"cond in category\.scoring.*scopes\.branch"):
        counted(scoped, True, X)


def under(scope, function, *args):
    with scope:
        return function(*args)


def loop(x):
    return lax.while_loop(lambda c: c.sum() < 9.0, lambda c: c @ W, x)


def test_a_while_without_its_trips_names_the_mend():
    with pytest.raises(UserError, match=r"while in .*scopes\.trips"):
        counted(loop, X)


def test_an_annotated_while_runs_its_trips():
    cost = of(lambda x: under(trips(6), loop, x), X)
    assert cost.matmul == 6 * PRODUCT
    assert cost.elementwise == 7 * X.size  # a sum and a comparison, tested 7 times


def test_a_loop_in_a_loop_needs_its_own_trips():
    body = lambda c: loop(c) @ W
    outer = lambda x: lax.while_loop(lambda c: c.sum() < 9.0, body, x)
    with pytest.raises(UserError, match="trips"):
        counted(lambda x: under(trips(6), outer, x), X)


def test_a_primitive_without_a_rule_is_named():
    host = lambda x: jax.pure_callback(lambda v: v, X, x)
    with pytest.raises(UserError, match=r"pure_callback.*measure/rules\.py"):
        counted(host, X)


# Whole programs


@pytest.mark.parametrize(
    ("preset", "optimizer", "fields"),
    [  # every pair of settings, with and without
        ("modern", "adamw", {"rows": 16}),
        ("modern", "muon", {"rows": 16, "parts": 4, "depth": 4, "remat": True}),
        ("gpt2", "adamw", {"rows": 16, "parts": 2, "vocab": 1031, "remat": True}),
        ("gpt2", "lion", {"parts": 2, "activation": "swiglu", "kv_heads": 1}),
        ("gpt2", "muon", {"parts": 2}),
        ("gpt2", "muon", {"remat": True}),
    ],
)
def test_matmuls_of_a_step_equal_the_closed_forms(step_of, preset, optimizer, fields):
    config, traced = step_of(preset, optimizer, **fields)
    costs = count(traced.jaxpr).total()
    assert sum(c.matmul for c in costs.values()) == sum(step_flops(config).values())
    assert costs["optimizer"].matmul == optimizer_flops(config)
    operations = 5 if optimizer == "lion" else 10
    assert costs["optimizer"].elementwise > operations * parameters(config.model)


def test_validation_and_generation_can_be_counted(batch, program, key):
    params = jax.eval_shape(program.init, key)
    losses = count(jax.make_jaxpr(compile_losses(program))(params, batch), "evaluation")
    assert [*losses.always] == ["evaluation"]
    sampler = compile_sampler(program, tokens=5, top_k=3, vocab=64)
    args = (params, batch.tokens, jnp.int32(3), jnp.float32(1), key)
    once = sum(count(jax.make_jaxpr(program.logits)(*args[:2])).always.values(), Cost())
    text = of(sampler, *args)
    assert text.matmul == 5 * once.matmul
    assert text.elementwise > 5 * once.elementwise


LIBRARY = {
    "laplace": lambda x: jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(x), True), x),
    "solve": lambda x: (jnp.linalg.solve(x, x), jnp.linalg.inv(x), jnp.linalg.det(x)),
    "log determinant": lambda x: jnp.linalg.slogdet(x),
    "least squares": lambda x: (jnp.linalg.lstsq(x, x), jnp.linalg.pinv(x)),
    "spectrum": lambda x: (jnp.linalg.eigh(x), jnp.linalg.svd(x), jnp.linalg.qr(x)),
    "spectral gradient": jax.grad(lambda x: jnp.linalg.eigh(x)[0].sum()),
    "order": lambda x: (jnp.argsort(x), jnp.quantile(x, 0.3), lax.top_k(x, 2)),
    "search": lambda x: (jnp.searchsorted(x[0], x[1]), jnp.unique(x[0], size=3)),
    "groups": lambda x: jax.ops.segment_sum(x, jnp.arange(4) % 2, num_segments=2),
    "sums": lambda x: (jnp.cumsum(x), lax.cumlogsumexp(x), jnp.cov(x)),
    "writes": lambda x: (x.at[0].max(1.0), x.at[1].mul(2.0), x.at[:2].set(0.0)),
    "special": lambda x: (jax.scipy.special.gammaln(x), jax.scipy.special.ndtri(x)),
    "Fourier": lambda x: jnp.fft.irfft(jnp.fft.rfft(x)),
    "Hessian": lambda x: jax.hessian(lambda v: (v**3).sum())(x[0]),
}
RANDOM = {
    "categorical": lambda k: jax.random.categorical(k, jnp.ones(5)),
    "permutation": lambda k: jax.random.permutation(k, 12),
    "choice": lambda k: jax.random.choice(k, 12, (3,), replace=False),
    "normal": lambda k: jax.random.truncated_normal(k, -1.0, 1.0, (3,)),
    "keys": lambda k: jax.random.key_data(jax.random.split(jax.random.fold_in(k, 1))),
    "orthogonal": lambda k: jax.random.orthogonal(k, 4),
    "integers": lambda k: jax.random.randint(k, (3,), 0, 5),
}


@pytest.mark.parametrize("name", [*LIBRARY, *RANDOM])
def test_what_later_parts_need_can_be_counted(name, key):
    if name in LIBRARY:
        cost = of(LIBRARY[name], jnp.ones((4, 4)))
    else:
        cost = of(RANDOM[name], key)
    assert cost.total > 0 or name == "writes"
