"""What products and factorisations of matrices cost: `MATRICES`, a rule for each.

A multiply-add is 2 FLOPs. Factorisations have the counts of Golub & Van Loan, "Matrix
Computations", 4th edition (GvL). These alone are charged bytes: see `work.Cost`.
"""

import math
from collections.abc import Callable

import numpy as np

from uets_jax.measure.work import Cost, Eqn, Rule, outputs, size


def _traffic(eqn: Eqn) -> int:
    avals = [v.aval for v in (*eqn.invars, *eqn.outvars)]
    return sum(math.prod(a.shape) * a.dtype.itemsize for a in avals)


def _matmul(flops: Callable[[Eqn], int]) -> Rule:
    return lambda eqn: Cost(matmul=flops(eqn), bytes=_traffic(eqn))


def _dot(eqn: Eqn) -> int:
    (contract, _), _ = eqn.params["dimension_numbers"]
    shape = eqn.invars[0].aval.shape
    return 2 * outputs(eqn) * math.prod(shape[i] for i in contract)


def _ragged_dot(eqn: Eqn) -> int:
    """Every row meets one group: groups add nothing, unless they are the output's."""
    numbers = eqn.params["ragged_dot_dimension_numbers"]
    (contract, _), _ = numbers.dot_dimension_numbers
    shape, groups = eqn.invars[0].aval.shape, eqn.invars[2].aval.shape[-1]
    split = any(i in contract for i in numbers.lhs_ragged_dimensions)
    pairs = outputs(eqn) * math.prod(shape[i] for i in contract)
    return 2 * pairs // (groups if split else 1)


def _taps(length, kernel, stride, low, lhs_dilation, rhs_dilation, out) -> int:
    """Pairs (output, kernel element) that meet an input and not padding or a hole."""
    at = np.arange(out)[:, None] * stride + np.arange(kernel)[None, :] * rhs_dilation
    at = at - low
    inside = (at >= 0) & (at <= (length - 1) * lhs_dilation) & (at % lhs_dilation == 0)
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
    return Cost(elementwise=n * size(eqn.invars[1]), bytes=_traffic(eqn))


def _tridiagonal_solve(eqn: Eqn) -> Cost:
    """8 per unknown: elimination and substitution (GvL 4.3)."""
    return Cost(elementwise=8 * outputs(eqn))


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
    points, n = max(size(eqn.invars[0]), outputs(eqn)), math.prod(lengths)
    real = any(v.aval.dtype.kind == "f" for v in (*eqn.invars, *eqn.outvars))
    return Cost(
        elementwise=round(5 * points * math.log2(max(n, 1)) / (2 if real else 1))
    )


MATRICES: dict[str, Rule] = {
    "dot_general": _matmul(_dot),
    "dot_product_attention_fwd_wrapper": _attention(2),
    "dot_product_attention_bwd_wrapper": _attention(4),
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
    "tridiagonal_solve": _tridiagonal_solve,
    "fft": _fft,
}
