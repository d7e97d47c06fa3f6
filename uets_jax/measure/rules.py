"""What one equation costs: a rule for every primitive, in FLOPs and bytes.

A multiply-add is 2 FLOPs. Moving data is free. An elementwise operation is 1 per
output element, integers and truth values too, booked apart where XLA calls it
transcendental; operations that XLA expands have the counts of their expansion
(`cost_analysis()` with jax 0.10.2). x + 0 and x * 1 with a literal are free, since they
are folded away. A reduction is 1 per input that it folds. Factorisations have the
counts of Golub & Van Loan, "Matrix Computations", 4th edition (GvL).
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

Eqn = Any  # jax.extend.core.JaxprEqn; shapes are read, nothing else


@dataclasses.dataclass(frozen=True)
class Cost:
    """FLOPs by kind, and the bytes that matrix operations read and write at least.

    matmul:         dot products, convolutions, attention.
    elementwise:    all other FLOPs: arithmetic, reductions, sorts, factorisations.
    transcendental: exp, log, tanh, sqrt, pow, ... in calls; XLA keeps them apart.
    bytes:          operands and results of matmuls and factorisations: the least
                    traffic of a program whose other operations are all fused.
    """

    matmul: int = 0
    elementwise: int = 0
    transcendental: int = 0
    bytes: int = 0

    @property
    def total(self) -> int:
        """FLOPs as XLA counts them: matmul + elementwise."""
        return self.matmul + self.elementwise

    def __add__(self, other: "Cost") -> "Cost":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Cost(*(a + b for a, b in pairs))

    def __mul__(self, times: int) -> "Cost":
        return Cost(*(times * a for a in dataclasses.astuple(self)))

    __rmul__ = __mul__


Rule = Callable[[Eqn], Cost]


def _size(var: Any) -> int:
    return math.prod(getattr(var.aval, "shape", ()))


def _outputs(eqn: Eqn) -> int:
    return sum(map(_size, eqn.outvars))


def _traffic(eqn: Eqn) -> int:
    avals = [v.aval for v in (*eqn.invars, *eqn.outvars)]
    return sum(math.prod(a.shape) * a.dtype.itemsize for a in avals)


def _each(flops: int, calls: int = 0) -> Rule:
    """So many FLOPs and transcendental calls per output element."""

    def rule(eqn: Eqn) -> Cost:
        n = _outputs(eqn)
        return Cost(elementwise=flops * n, transcendental=calls * n)

    return rule


def _fold(flops: int = 1) -> Rule:
    """So many FLOPs per element that a reduction folds away."""
    return lambda eqn: Cost(elementwise=flops * (_size(eqn.invars[0]) - _outputs(eqn)))


def _unless(neutral: int, *places: int) -> Rule:
    """1 per output element, unless an operand in `places` is the neutral literal."""

    def rule(eqn: Eqn) -> Cost:
        literals = [getattr(eqn.invars[i], "val", None) for i in places]
        neutrals = [x for x in literals if x is not None and np.ndim(x) == 0]
        folded = any(x == neutral for x in neutrals)
        return Cost(elementwise=0 if folded else _outputs(eqn))

    return rule


def _choose(eqn: Eqn) -> Cost:
    """One selection between two operands, n - 1 (and their tests) between n."""
    cases = len(eqn.invars) - 1
    return Cost(elementwise=_outputs(eqn) * (1 if cases == 2 else 2 * (cases - 1)))


def _convert(eqn: Eqn) -> Cost:
    same = eqn.invars[0].aval.dtype == eqn.outvars[0].aval.dtype
    return Cost(elementwise=0 if same else _outputs(eqn))


def _integer_pow(eqn: Eqn) -> Cost:
    """Products of repeated squaring, and a division for a negative exponent."""
    y = abs(eqn.params["y"])
    products = y.bit_length() - 1 + y.bit_count() - 1 if y else 0
    return Cost(elementwise=_outputs(eqn) * (products + (eqn.params["y"] < 0)))


def _polynomial(eqn: Eqn) -> Cost:
    """Horner's rule."""
    return Cost(elementwise=2 * (len(eqn.invars) - 2) * _outputs(eqn))


def _sort(eqn: Eqn) -> Cost:
    """n log2 n comparisons per row."""
    n = eqn.invars[0].aval.shape[eqn.params["dimension"]]
    return Cost(elementwise=_size(eqn.invars[0]) * math.ceil(math.log2(max(n, 1))))


def _top_k(eqn: Eqn) -> Cost:
    """n log2 k comparisons per row: a heap of k."""
    k = eqn.params["k"]
    return Cost(elementwise=_size(eqn.invars[0]) * max(1, math.ceil(math.log2(k or 1))))


def _scatter(eqn: Eqn) -> Cost:
    return Cost(elementwise=_size(eqn.invars[2]))


def _window(eqn: Eqn) -> Cost:
    window = math.prod(eqn.params["window_dimensions"])
    return Cost(elementwise=_outputs(eqn) * (window - 1))


def _window_scatter(eqn: Eqn) -> Cost:
    window = math.prod(eqn.params["window_dimensions"])
    return Cost(elementwise=_size(eqn.invars[0]) * window)


def _matmul(flops: Callable[[Eqn], int]) -> Rule:
    return lambda eqn: Cost(matmul=flops(eqn), bytes=_traffic(eqn))


def _dot(eqn: Eqn) -> int:
    (contract, _), _ = eqn.params["dimension_numbers"]
    shape = eqn.invars[0].aval.shape
    return 2 * _outputs(eqn) * math.prod(shape[i] for i in contract)


def _ragged_dot(eqn: Eqn) -> int:
    """Every row meets one group: groups add nothing, unless they are the output's."""
    numbers = eqn.params["ragged_dot_dimension_numbers"]
    (contract, _), _ = numbers.dot_dimension_numbers
    shape, groups = eqn.invars[0].aval.shape, eqn.invars[2].aval.shape[-1]
    split = any(i in contract for i in numbers.lhs_ragged_dimensions)
    pairs = _outputs(eqn) * math.prod(shape[i] for i in contract)
    return 2 * pairs // (groups if split else 1)


def _taps(size, kernel, stride, low, lhs_dilation, rhs_dilation, out) -> int:
    """Pairs (output, kernel element) that meet an input and not padding or a hole."""
    at = np.arange(out)[:, None] * stride + np.arange(kernel)[None, :] * rhs_dilation
    at = at - low
    inside = (at >= 0) & (at <= (size - 1) * lhs_dilation) & (at % lhs_dilation == 0)
    return int(inside.sum())


def _conv(eqn: Eqn) -> int:
    p, numbers = eqn.params, eqn.params["dimension_numbers"]
    lhs, rhs, out = (v.aval.shape for v in (*eqn.invars[:2], eqn.outvars[0]))
    pairs = out[numbers.out_spec[0]] * out[numbers.out_spec[1]]
    pairs *= rhs[numbers.rhs_spec[1]]
    axes = zip(
        numbers.lhs_spec[2:], numbers.rhs_spec[2:], numbers.out_spec[2:], strict=True
    )
    for i, (a, b, c) in enumerate(axes):
        dilation = p["lhs_dilation"][i], p["rhs_dilation"][i]
        low, stride = p["padding"][i][0], p["window_strides"][i]
        pairs *= _taps(lhs[a], rhs[b], stride, low, *dilation, out[c])
    return 2 * pairs


def _attention(matmuls: int) -> Rule:
    """Of cuDNN: so many L x L products per head; the full square, as `flops.py` has it.

    The backward kernel's own recomputation of the scores is not charged, so that one
    program costs the same with either attention.
    """

    def flops(eqn: Eqn) -> int:
        query, key = (v.aval.shape for v in eqn.invars[:2])  # [B, L, H, K]
        if eqn.params.get("layout", 0) == 1:  # [B, H, L, K]
            return 2 * matmuls * math.prod(query) * key[2]
        return 2 * matmuls * math.prod(query) * key[1]

    return _matmul(flops)


def _factor(flops: Callable[[Eqn, int, int], int | float]) -> Rule:
    """`flops(eqn, m, n)` of each matrix [m, n], m >= n, in a batch."""

    def rule(eqn: Eqn) -> Cost:
        *batch, a, b = eqn.invars[0].aval.shape
        one = round(flops(eqn, max(a, b), min(a, b)))
        return Cost(elementwise=math.prod(batch) * one, bytes=_traffic(eqn))

    return rule


def _triangular_solve(eqn: Eqn) -> Cost:
    """n^2 per right-hand side (GvL 3.1)."""
    n = eqn.invars[0].aval.shape[-1]
    return Cost(elementwise=n * _size(eqn.invars[1]), bytes=_traffic(eqn))


def _qr(eqn: Eqn, m: int, n: int) -> int | float:
    """Householder, 2 n^2 (m - n/3), and as much again for the thin Q (GvL 5.2)."""
    full = eqn.params["full_matrices"]
    q = 4 * (m * m * n - m * n * n + n**3 / 3) if full else 2 * n * n * (m - n / 3)
    return 2 * n * n * (m - n / 3) + q


def _svd(eqn: Eqn, m: int, n: int) -> int | float:
    """Golub-Reinsch (GvL, table of section 8.6)."""
    if not eqn.params["compute_uv"]:
        return 4 * m * n * n - 4 * n**3 / 3
    if eqn.params["full_matrices"]:
        return 4 * m * m * n + 8 * m * n * n + 9 * n**3
    return 14 * m * n * n + 8 * n**3


def _eigh(eqn: Eqn, m: int, n: int) -> int | float:
    """9 n^3 with vectors, 4 n^3 / 3 without (GvL 8.3)."""
    return 9 * n**3 if len(eqn.outvars) > 1 else 4 * n**3 / 3


def _eig(eqn: Eqn, m: int, n: int) -> int | float:
    """25 n^3 with vectors, 10 n^3 without (GvL 7.5)."""
    return 25 * n**3 if len(eqn.outvars) > 1 else 10 * n**3


def _fft(eqn: Eqn) -> Cost:
    """5 n log2 n per complex transform, half of it where one side is real."""
    lengths = eqn.params["fft_lengths"]
    points, n = max(_size(eqn.invars[0]), _outputs(eqn)), math.prod(lengths)
    real = any(v.aval.dtype.kind == "f" for v in (*eqn.invars, *eqn.outvars))
    return Cost(
        elementwise=round(5 * points * math.log2(max(n, 1)) / (2 if real else 1))
    )


# Threefry-2x32 (Salmon et al. 2011): 20 rounds of add, rotate (3 operations) and xor,
# 5 key injections of 2 sums, the first 2 sums.
_THREEFRY = 20 * 5 + 5 * 2 + 2


def _random(eqn: Eqn) -> Cost:
    """One call of Threefry per element or key drawn, whatever its width."""
    return Cost(elementwise=_THREEFRY * max(map(_size, eqn.outvars)))


def _table(words: str, rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(words.split(), rule)


RULES: dict[str, Rule] = {
    **_table(
        "broadcast_in_dim broadcast_to reshape transpose squeeze slice dynamic_slice "
        "dynamic_update_slice gather scatter concatenate pad rev copy iota split "
        "copy_p stack unstack tile bitcast_convert_type real imag complex "
        "stop_gradient name optimization_barrier sharding_constraint "
        "layout_constraint mesh_cast reshard device_put random_wrap random_unwrap "
        "random_clone create_token after_all all_gather all_gather_invariant "
        "all_gather_reduced all_to_all ppermute pbroadcast ragged_all_to_all pvary "
        "preduced axis_index platform_index with_memory_space_constraint empty "
        "zeros_like xla_metadata_value reduced_vary_cast_p reduced_vary_cast "
        "vary_unreduced_cast_p new_ref get swap vary_unreduced_cast debug_callback "
        "debug_print inspect_sharding shard_alike lu_pivots_to_permutation freeze "
        "free_ref",
        lambda eqn: Cost(),
    ),
    **_table("add add_any or xor", _unless(0, 0, 1)),
    **_table(
        "sub shift_left shift_right_logical shift_right_arithmetic", _unless(0, 1)
    ),
    "mul": _unless(1, 0, 1),
    "div": _unless(1, 1),
    **_table(
        "rem max min neg abs sign floor ceil round and not eq ne lt le gt ge eq_to "
        "le_to lt_to clamp is_finite square reduce_precision population_count clz conj "
        "mulhi reciprocal stochastic_round cumsum cumprod cummax cummin psum "
        "psum_invariant pmax pmin unreduced_psum unreduced_pmax unreduced_pmin "
        "unreduced_reduce_scatter reduce_scatter",
        _each(1),
    ),
    **_table("exp log log1p expm1 sin cos tan tanh sqrt rsqrt cbrt", _each(0, 1)),
    **_table("pow atan atan2 erf", _each(0, 1)),
    **_table("exp2 log2", _each(1, 1)),
    "one_minus_square": _each(2),
    "logistic": _each(3, 1),
    "asin": _each(5, 2),
    "acos": _each(3, 2),
    "sinh": _each(10, 3),
    "cosh": _each(3, 2),
    "asinh": _each(11, 3),
    "acosh": _each(7, 4),
    "atanh": _each(6, 2),
    "erfc": _each(62, 1),
    "erf_inv": _each(37, 2),
    "lgamma": _each(53, 4),
    "digamma": _each(73, 3),
    **_table("bessel_i0e bessel_i1e", _each(83, 1)),
    "nextafter": _each(24),
    "cumlogsumexp": _each(8, 2),
    "polynomial": _polynomial,
    "select_n": _choose,
    **_table("reduce_sum reduce_prod reduce_max reduce_min", _fold()),
    **_table("reduce_and reduce_or reduce_xor", _fold()),
    **_table("argmax argmin", _fold(9)),
    **_table("scatter-add scatter-sub scatter-mul scatter-min scatter-max", _scatter),
    **_table("reduce_window_sum reduce_window_max reduce_window_min", _window),
    "select_and_gather_add": _window,
    "select_and_scatter_add": _window_scatter,
    **_table("random_bits random_split random_fold_in random_seed", _random),
    **_table("threefry2x32 rng_bit_generator rng_uniform", _random),
    "dot_general": _matmul(_dot),
    "dot_product_attention_fwd_wrapper": _attention(2),
    "dot_product_attention_bwd_wrapper": _attention(4),
    "convert_element_type": _convert,
    "integer_pow": _integer_pow,
    "sort": _sort,
    "top_k": _top_k,
    "approx_top_k": _top_k,
    "ragged_dot_general": _matmul(_ragged_dot),
    "conv_general_dilated": _matmul(_conv),
    "cholesky": _factor(lambda eqn, m, n: n**3 / 3),  # GvL 4.2
    "cholesky_update": _factor(lambda eqn, m, n: 2 * n * n),  # GvL 6.5
    "lu": _factor(lambda eqn, m, n: n * n * (m - n / 3)),  # GvL 3.4
    "qr": _factor(_qr),
    "geqrf": _factor(lambda eqn, m, n: 2 * n * n * (m - n / 3)),  # GvL 5.2
    "geqp3": _factor(lambda eqn, m, n: 2 * n * n * (m - n / 3)),
    "householder_product": _factor(lambda eqn, m, n: 2 * n * n * (m - n / 3)),
    "hessenberg": _factor(lambda eqn, m, n: 10 * n**3 / 3),  # GvL 7.4
    "tridiagonal": _factor(lambda eqn, m, n: 4 * n**3 / 3),  # GvL 8.3
    "schur": _factor(lambda eqn, m, n: 25 * n**3),  # GvL 7.5
    "svd": _factor(_svd),
    "eigh": _factor(_eigh),
    "eig": _factor(_eig),
    "triangular_solve": _triangular_solve,
    "tridiagonal_solve": _each(8),
    "fft": _fft,
}
