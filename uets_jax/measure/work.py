"""The unit of account: FLOPs by kind and bytes; what a rule reads of an equation."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

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


Costs = dict[str, Cost]  # by category
Rule = Callable[[Eqn], Cost]


def size(var: Any) -> int:
    """Elements of an operand or a result."""
    return math.prod(getattr(var.aval, "shape", ()))


def outputs(eqn: Eqn) -> int:
    """Elements of all results of an equation."""
    return sum(map(size, eqn.outvars))
