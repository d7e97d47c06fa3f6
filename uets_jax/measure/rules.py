"""What one equation costs: a rule for every primitive, in FLOPs and bytes.

Moving data is free. An elementwise operation is 1 per output element, integers and
truth values too, booked apart where XLA calls it transcendental; what XLA expands
has the count of its expansion (`cost_analysis()` with jax 0.10.2). x + 0 and x * 1
with a literal are free, since they are folded away. A reduction is 1 per input that it
folds. Products and factorisations of matrices stand in `matrices`.
"""

import math

import numpy as np

from uets_jax.measure.matrices import MATRICES
from uets_jax.measure.work import Cost, Eqn, Rule, outputs, size


def _each(flops: int, calls: int = 0) -> Rule:
    """So many FLOPs and transcendental calls per output element."""

    def rule(eqn: Eqn) -> Cost:
        n = outputs(eqn)
        return Cost(elementwise=flops * n, transcendental=calls * n)

    return rule


def _fold(flops: int = 1) -> Rule:
    """So many FLOPs per element that a reduction folds away."""
    return lambda eqn: Cost(elementwise=flops * (size(eqn.invars[0]) - outputs(eqn)))


def _unless(neutral: int, *places: int) -> Rule:
    """1 per output element, unless an operand in `places` is the neutral literal."""

    def rule(eqn: Eqn) -> Cost:
        literals = [getattr(eqn.invars[i], "val", None) for i in places]
        neutrals = [x for x in literals if x is not None and np.ndim(x) == 0]
        folded = any(x == neutral for x in neutrals)
        return Cost(elementwise=0 if folded else outputs(eqn))

    return rule


def _choose(eqn: Eqn) -> Cost:
    """One selection between two operands, n - 1 (and their tests) between n."""
    cases = len(eqn.invars) - 1
    return Cost(elementwise=outputs(eqn) * (1 if cases == 2 else 2 * (cases - 1)))


def _convert(eqn: Eqn) -> Cost:
    same = eqn.invars[0].aval.dtype == eqn.outvars[0].aval.dtype
    return Cost(elementwise=0 if same else outputs(eqn))


def _integer_pow(eqn: Eqn) -> Cost:
    """Products of repeated squaring, and a division for a negative exponent."""
    y = abs(eqn.params["y"])
    products = y.bit_length() - 1 + y.bit_count() - 1 if y else 0
    return Cost(elementwise=outputs(eqn) * (products + (eqn.params["y"] < 0)))


def _polynomial(eqn: Eqn) -> Cost:
    """Horner's rule."""
    return Cost(elementwise=2 * (len(eqn.invars) - 2) * outputs(eqn))


def _sort(eqn: Eqn) -> Cost:
    """n log2 n comparisons per row."""
    n = eqn.invars[0].aval.shape[eqn.params["dimension"]]
    return Cost(elementwise=size(eqn.invars[0]) * math.ceil(math.log2(max(n, 1))))


def _top_k(eqn: Eqn) -> Cost:
    """n log2 k comparisons per row: a heap of k."""
    k = eqn.params["k"]
    return Cost(elementwise=size(eqn.invars[0]) * max(1, math.ceil(math.log2(k or 1))))


def _scatter(eqn: Eqn) -> Cost:
    return Cost(elementwise=size(eqn.invars[2]))


def _window(eqn: Eqn) -> Cost:
    window = math.prod(eqn.params["window_dimensions"])
    return Cost(elementwise=outputs(eqn) * (window - 1))


def _window_scatter(eqn: Eqn) -> Cost:
    window = math.prod(eqn.params["window_dimensions"])
    return Cost(elementwise=size(eqn.invars[0]) * window)


# Threefry-2x32 (Salmon et al. 2011): 20 rounds of add, rotate (3 operations) and xor,
# 5 key injections of 2 sums, the first 2 sums.
_THREEFRY = 20 * 5 + 5 * 2 + 2


def _random(eqn: Eqn) -> Cost:
    """One call of Threefry per element or key drawn, whatever its width."""
    return Cost(elementwise=_THREEFRY * max(map(size, eqn.outvars)))


def _table(words: str, rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(words.split(), rule)


RULES: dict[str, Rule] = {
    **MATRICES,
    **_table(
        "broadcast_in_dim broadcast_to reshape transpose squeeze slice dynamic_slice "
        "dynamic_update_slice gather scatter concatenate pad rev copy iota split "
        "copy_p stack unstack tile bitcast_convert_type real imag complex "
        "stop_gradient name optimization_barrier sharding_constraint "
        "layout_constraint mesh_cast reshard device_put random_wrap random_unwrap "
        "random_clone create_token after_all all_gather all_gather_invariant "
        "all_gather_reduced all_to_all ppermute pbroadcast ragged_all_to_all pvary "
        "preduced axis_index platform_index with_memory_space_constraint empty empty2 "
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
    "convert_element_type": _convert,
    "integer_pow": _integer_pow,
    "sort": _sort,
    "top_k": _top_k,
    "approx_top_k": _top_k,
}
