import jax
import jax.numpy as jnp
import pytest
from jax import lax

from uets_jax.measure.jaxpr import count
from uets_jax.measure.matrices import MATRICES
from uets_jax.measure.rules import RULES
from uets_jax.measure.work import Cost

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
}
AS_XLA |= {
    f"power {n}": (lambda x, n=n: lax.integer_pow(x, n), (SMALL,))
    for n in (-3, -1, 2, 3, 4, 7, 10)
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


@pytest.mark.parametrize(
    ("function", "shape", "expected"),
    [
        (lambda x: lax.top_k(x, 8), (3, 100), 300 * 3),
        (lax.cumsum, (40, 3), 120),
    ],
)
def test_comparisons_and_running_sums(function, shape, expected):
    cost = of(function, jnp.ones(shape))
    assert (cost.elementwise, cost.total) == (expected, expected)


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


@pytest.mark.parametrize(
    "name", ["pallas_call", "ffi_call", "pure_callback", "random_gamma", "while"]
)
def test_what_can_not_be_known_has_no_rule(name):
    assert name not in RULES


def test_the_table_holds_the_rules_of_matrices():
    assert {name: RULES[name] for name in MATRICES} == MATRICES
