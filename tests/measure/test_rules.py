import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from uets_jax.measure.jaxpr import count
from uets_jax.measure.rules import RULES, Cost

SMALL = jnp.full((6, 50), 0.3)
INTS = jnp.arange(300, dtype=jnp.int32).reshape(6, 50)

UNARY = """exp log log1p expm1 exp2 sin cos tan tanh sqrt rsqrt cbrt erf atan neg abs
    sign floor ceil round square is_finite logistic acos sinh cosh asinh acosh atanh
    erf_inv bessel_i0e"""
BINARY = "add sub mul div max min rem pow atan2 nextafter lt ge ne eq"

# exact agreement with XLA, whose count is taken before it optimises
AS_XLA = {name: (getattr(lax, name), (SMALL,)) for name in UNARY.split()} | {
    name: (getattr(lax, name), (SMALL, SMALL)) for name in BINARY.split()
}
AS_XLA |= {
    "add nothing": (lambda x: x + 0.0, (SMALL,)),
    "times one": (lambda x: 1.0 * x, (SMALL,)),
    "add something": (lambda x: x + 2.0, (SMALL,)),
    "cast": (lambda x: x.astype(jnp.int32), (SMALL,)),
    "no cast": (lambda x: x.astype(jnp.float32), (SMALL,)),
    "integers": (lambda x: (x & 3) ^ (x | 5), (INTS,)),
    "select": (lambda x: lax.select(x > 0, x, -x), (SMALL,)),
    "clamp": (lambda x: lax.clamp(0.0, x, 1.0), (SMALL,)),
    "sum": (lambda x: lax.reduce_sum(x, (1,)), (SMALL,)),
    "max": (lambda x: lax.reduce_max(x, (0,)), (SMALL,)),
    "all": (lambda x: lax.reduce_and(x, (0, 1)), (SMALL > 0,)),
    "argmax": (lambda x: lax.argmax(x, 1, jnp.int32), (SMALL,)),
    "sort": (lax.sort, (SMALL[0],)),
    "sort pairs": (lambda x, y: lax.sort((x, y)), (SMALL[0], INTS[0])),
    "scatter-add": (
        lambda x, i: jnp.zeros(300).at[i].add(x, mode="promise_in_bounds"),
        (SMALL[0], INTS[0]),
    ),
    "window": (
        lambda x: lax.reduce_window(x, 0.0, lax.add, (2, 5), (1, 1), "VALID"),
        (SMALL,),
    ),
    "moves": (lambda x: jnp.pad(x.T[::-1].reshape(-1), 3)[2:], (SMALL,)),
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
AS_XLA |= {
    f"power {n}": (lambda x, n=n: lax.integer_pow(x, n), (SMALL,))
    for n in (-3, -1, 2, 3, 4, 7, 10)
}

IMAGE, KERNEL = jnp.ones((2, 4, 9, 10)), jnp.ones((6, 4, 3, 2))
CONVOLUTIONS = {
    "valid": {"padding": "VALID"},
    "same": {"padding": "SAME"},
    "strided": {"padding": ((2, 1), (0, 3)), "window_strides": (2, 3)},
    "dilated": {"padding": "SAME", "rhs_dilation": (2, 1)},
    "transposed": {"padding": ((1, 1), (2, 0)), "lhs_dilation": (2, 2)},
}


def of(function, *args) -> Cost:
    """All that the walk counts."""
    total = count(jax.make_jaxpr(function)(*args)).total()
    return sum(total.values(), start=Cost())


def xla(function, *args) -> tuple[float, float]:
    """FLOPs and transcendental calls by XLA, of the program before it is optimised."""
    found = jax.jit(function).lower(*args).cost_analysis() or {}
    return found.get("flops", 0.0), found.get("transcendentals", 0.0)


@pytest.mark.parametrize("name", AS_XLA)
def test_a_primitive_costs_what_xla_says(name):
    function, args = AS_XLA[name]
    cost = of(function, *args)
    assert (cost.total, cost.transcendental) == xla(function, *args)


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
        (lambda x: lax.top_k(x, 8), (3, 100), 300 * 3),
        (lax.cumsum, (40, 3), 120),
    ],
)
def test_textbook_counts(function, shape, expected):
    jaxpr = jax.make_jaxpr(function)(jnp.ones(shape))
    found = [RULES[e.primitive.name](e) for e in flat(jaxpr.jaxpr)]
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


def test_random_bits_are_threefry():
    """Rounds and key injections, counted on a NumPy object that counts."""
    operations = 0

    class Word:
        def _next(self, other=None):
            nonlocal operations
            operations += 1
            return self

        __add__ = __xor__ = __or__ = __lshift__ = __rshift__ = _next

    a, b, key = Word(), Word(), Word()
    a, b = a + key, b + key
    for group in range(5):
        for _ in range(4):
            a = a + b
            b = ((b << 13) | (b >> 19)) ^ a
        a, b = a + key, b + (group + 1)
    assert of(lambda: jax.random.bits(jax.random.key(0), (1000,))).elementwise in range(
        1000 * operations, 1000 * operations + 2000
    )


@pytest.mark.parametrize(("kind", "products"), [("fwd", 2), ("bwd", 4)])
def test_fused_attention_costs_what_the_plain_one_does(kind, products):
    shape = lambda *s: SimpleNamespace(
        aval=SimpleNamespace(shape=s, dtype=np.dtype(np.float32))
    )
    b, length, heads, dim = 2, 16, 3, 8
    rule = RULES[f"dot_product_attention_{kind}_wrapper"]
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


def test_costs_add_and_repeat():
    a, b = Cost(1, 2, 3, 4), Cost(10, 20, 30, 40)
    assert a + b == Cost(11, 22, 33, 44)
    assert 3 * a == a * 3 == a + a + a
    assert (a.total, Cost()) == (3, 0 * a)
    assert isinstance(math.prod([a.matmul, 2]), int)


@pytest.mark.parametrize(
    "name", ["pallas_call", "ffi_call", "pure_callback", "random_gamma", "while"]
)
def test_what_can_not_be_known_has_no_rule(name):
    assert name not in RULES
