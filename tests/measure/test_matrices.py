from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from uets_jax.measure.jaxpr import count
from uets_jax.measure.matrices import MATRICES
from uets_jax.measure.work import Cost

IMAGE, KERNEL = jnp.ones((2, 4, 9, 10)), jnp.ones((6, 4, 3, 2))
CONVOLUTIONS = {
    "valid": {"padding": "VALID"},
    "same": {"padding": "SAME"},
    "strided": {"padding": ((2, 1), (0, 3)), "window_strides": (2, 3)},
    "dilated": {"padding": "SAME", "rhs_dilation": (2, 1)},
    "transposed": {"padding": ((1, 1), (2, 0)), "lhs_dilation": (2, 2)},
}
SMALL = jnp.full((6, 50), 0.3)
DOTS = {
    "dot": (jnp.matmul, (SMALL, SMALL.T)),
    "batched dot": (
        lambda a, b: jnp.einsum("bij,bkj->bik", a, b),
        (jnp.ones((3, 4, 5)), jnp.ones((3, 6, 5))),
    ),
    "bfloat16 dot": (
        lambda a: jnp.matmul(a, a.T, preferred_element_type=jnp.float32),
        (SMALL.astype(jnp.bfloat16),),
    ),
    "outer": (lambda a: jnp.einsum("i,j->ij", a[0], a[1]), (SMALL,)),
}


def of(function, *args) -> Cost:
    """All that the walk counts."""
    total = count(jax.make_jaxpr(function)(*args)).total()
    return sum(total.values(), start=Cost())


def xla(function, *args) -> tuple[float, float]:
    """FLOPs and transcendental calls by XLA, of the program before it is optimised."""
    found = jax.jit(function).lower(*args).cost_analysis() or {}
    return found.get("flops", 0.0), found.get("transcendentals", 0.0)


@pytest.mark.parametrize("name", DOTS)
def test_a_product_costs_what_xla_says(name):
    function, args = DOTS[name]
    cost = of(function, *args)
    assert (cost.total, 0) == xla(function, *args)
    assert cost.matmul == cost.total


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("derivative", [False, True])
def test_a_convolution_costs_what_xla_says(name, derivative):
    fields = {"window_strides": (1, 1), **CONVOLUTIONS[name]}
    convolve = lambda x, w: lax.conv_general_dilated(x, w, **fields)
    gradients = lambda x, w, ct: jax.vjp(convolve, x, w)[1](ct)
    function, args = convolve, (IMAGE, KERNEL)
    if derivative:
        function, args = gradients, (*args, jnp.ones_like(convolve(*args)))
    cost = of(function, *args)
    assert cost.matmul == xla(function, *args)[0]
    assert cost.elementwise == 0


def test_grouped_convolutions_cost_what_xla_says():
    image, kernel = jnp.ones((2, 8, 9, 9)), jnp.ones((12, 2, 3, 3))
    convolve = lambda x, w: lax.conv_general_dilated(
        x, w, (1, 1), "SAME", feature_group_count=4
    )
    assert of(convolve, image, kernel).matmul == xla(convolve, image, kernel)[0]


@pytest.mark.parametrize(
    ("function", "shape", "expected"),
    [
        (jnp.linalg.cholesky, (12, 12), 12**3 / 3),
        (jax.lax.linalg.lu, (12, 12), 2 * 12**3 / 3),
        (jax.lax.linalg.lu, (5, 20, 12), 5 * (20 * 144 - 12**3 / 3)),
        (lambda x: jnp.linalg.qr(x, mode="reduced"), (20, 12), 4 * 144 * 16),
        (
            lambda x: jax.lax.linalg.qr(x, full_matrices=True),
            (20, 12),
            2 * 144 * 16 + 4 * (400 * 12 - 20 * 144 + 576),
        ),
        (jax.lax.linalg.eigh, (12, 12), 9 * 12**3),
        (jax.lax.linalg.svd, (20, 12), 4 * 400 * 12 + 8 * 20 * 144 + 9 * 1728),
        (
            lambda x: jax.lax.linalg.svd(x, full_matrices=False),
            (12, 20),
            14 * 20 * 144 + 8 * 1728,
        ),
        (
            lambda x: jax.lax.linalg.svd(x, compute_uv=False),
            (20, 12),
            4 * 20 * 144 - 4 * 576,
        ),
        (
            lambda x: lax.linalg.triangular_solve(x, x[..., :7], left_side=True),
            (3, 12, 12),
            3 * 144 * 7,
        ),
        (
            lambda x: lax.fft(x.astype(jnp.complex64), "fft", (64,)),
            (5, 64),
            5 * 5 * 384,
        ),
        (lambda x: lax.fft(x, "rfft", (64,)), (5, 64), 5 * 5 * 384 / 2),
    ],
)
def test_textbook_counts(function, shape, expected):
    jaxpr = jax.make_jaxpr(function)(jnp.ones(shape))
    named = [(eqn.primitive.name, eqn) for eqn in flat(jaxpr.jaxpr)]
    found = [MATRICES[name](eqn) for name, eqn in named if name in MATRICES]
    heavy = max(found, key=lambda cost: cost.elementwise)
    assert heavy.elementwise == round(expected)
    assert heavy.matmul == 0


def flat(jaxpr):
    """All equations that hold no program."""
    for eqn in jaxpr.eqns:
        inner = eqn.params.get("jaxpr")
        yield from flat(inner.jaxpr) if inner is not None else [eqn]


def test_cholesky_is_what_its_loops_do():
    """The sum over columns of the textbook's algorithm, to its leading order."""
    n, flops = 200, 0
    cholesky = lambda x: jax.lax.linalg.cholesky(x, symmetrize_input=False)
    for j in range(n):
        flops += 2 * j * (n - j) + (n - j)  # column j: a matrix-vector product, a scale
    counted = of(cholesky, jnp.eye(n)).elementwise
    assert counted == pytest.approx(flops, rel=0.05)


@pytest.mark.parametrize("groups", [1, 4])
def test_a_ragged_dot_costs_what_its_rows_do(groups):
    x, w = jnp.ones((24, 5)), jnp.ones((groups, 5, 7))
    sizes = jnp.full(groups, 24 // groups, jnp.int32)
    forward = lambda x, w: lax.ragged_dot(x, w, sizes)
    assert of(forward, x, w).matmul == 2 * 24 * 5 * 7
    both = lambda x, w: jax.vjp(forward, x, w)[1](jnp.ones((24, 7)))
    assert of(both, x, w).matmul == 2 * 2 * 24 * 5 * 7


@pytest.mark.parametrize(("kind", "products"), [("fwd", 2), ("bwd", 4)])
def test_fused_attention_costs_what_the_plain_one_does(kind, products):
    shape = lambda *s: SimpleNamespace(
        aval=SimpleNamespace(shape=s, dtype=np.dtype(np.float32))
    )
    b, length, heads, dim = 2, 16, 3, 8
    rule = MATRICES[f"dot_product_attention_{kind}_wrapper"]
    for layout, dims in ((0, (b, length, heads, dim)), (1, (b, heads, length, dim))):
        tensors = [shape(*dims)] * 3
        eqn = SimpleNamespace(
            invars=tensors, outvars=tensors[:1], params={"layout": layout}
        )
        expected = products * 2 * b * heads * length * length * dim
        assert rule(eqn).matmul == expected
    forward = lambda q, k, v: jax.nn.dot_product_attention(q, k, v)
    q = jnp.ones((b, length, heads, dim))
    plain = of(forward, q, q, q).matmul
    if kind == "bwd":
        both = of(lambda *a: jax.vjp(forward, *a)[1](q), q, q, q).matmul
        plain = both - plain // 2  # of the forward pass, the weights alone are needed
    assert expected == plain


def test_bytes_are_those_of_matrices_alone():
    cost = of(lambda a, b: jnp.sin(a @ b), jnp.ones((8, 4)), jnp.ones((4, 6)))
    assert cost.bytes == 4 * (8 * 4 + 4 * 6 + 8 * 6)
    half = of(jnp.matmul, *[jnp.ones((4, 4), jnp.bfloat16)] * 2)
    assert half.bytes == 2 * 3 * 16
