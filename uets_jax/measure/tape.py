"""A jaxpr as a tape: its operations in a row, calls written out, values numbered.

What each operation wants of buffers stands here; who shares one, and from when to when,
stands in `memory`.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from jax.extend.core import Literal

# beginnings of names: operations that XLA leaves alone, so that operands and result
# lie in memory
_WHOLE = (
    "cholesky",
    "cond",
    "conv_general",
    "cum",
    "dot_",
    "eigh",
    "qr",
    "ragged_dot",
    "scan",
    "scatter",
    "sort",
    "svd",
    "top_k",
    "triangular_solve",
    "while",
)
_OWN = ("arg", "gather", "reduce_")  # only the result lies in memory
_MOVES = {"concatenate", "gather", "pad", "relayout", "rev", "transpose"}
_VIEWS = {"expand_dims", "reshape", "sharding_constraint", "squeeze", "stop_gradient"}
_BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")


def nbytes(shape: tuple[int, ...], dtype: Any) -> int:
    """Bytes of an array; a key of random numbers has 8."""
    return math.prod(shape) * getattr(dtype, "itemsize", 8)


class Op(NamedTuple):
    """One operation on numbered values.

    turns:   of a loop, its turn; of a cond, its branches.
    carries: a loop's values before its first and after its last turn.
    leading: it reduces axis 0, but not all.
    """

    name: str
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    turns: tuple["Turn", ...] = ()
    carries: tuple[tuple[int, int], ...] = ()
    leading: bool = False

    @property
    def whole(self) -> bool:
        """Its operands need buffers."""
        return self.leading or self.name.startswith(_WHOLE)

    @property
    def owns(self) -> bool:
        """It writes to a buffer of its own."""
        return self.whole or self.name.startswith(_OWN)

    @property
    def in_place(self) -> bool:
        """Its result can take the buffer of an operand that nobody reads later."""
        if self.name.startswith(("scatter", "dynamic_update")):
            return True
        return not self.owns and self.name not in _MOVES


class Turn(NamedTuple):
    """One turn of a loop, or one branch.

    carry:    values that the loop keeps from turn to turn, as the turn finds them.
    slices:   values that are cut out of larger ones for this turn.
    kept:     the carry as the turn leaves it, or the results of a branch.
    streamed: results that are stacked over the turns.
    """

    tape: "Tape"
    carry: Sequence[int] = ()
    slices: Sequence[int] = ()
    kept: Sequence[int] = ()
    streamed: Sequence[int] = ()


class Tape:
    """The operations of a program; `sizes` are the bytes of its values.

    Args:
      unwritten: numbers of elements of values that never lie in memory.
      widened: bfloat16 lies in memory as float32, as on a CPU.
    """

    def __init__(
        self, unwritten: frozenset[int] = frozenset(), widened: bool = False
    ) -> None:
        self.unwritten, self.widened = unwritten, widened
        self.sizes: list[int] = []
        self.ops: list[Op] = []
        self._zeros: set[int] = set()
        self._scatters: dict[int, Op] = {}  # those into zeros, by their result

    def new(self, aval: Any) -> int:
        """The number of a new value."""
        hidden = math.prod(aval.shape) in self.unwritten
        wide = self.widened and getattr(aval.dtype, "name", "") == "bfloat16"
        size = nbytes(aval.shape, aval.dtype) * (2 if wide else 1)
        self.sizes.append(0 if hidden else size)
        return len(self.sizes) - 1

    def play(self, jaxpr: Any, given: Sequence[int]) -> list[int]:
        """Appends the operations of `jaxpr`; returns the numbers of its results."""
        numbers = dict(zip(jaxpr.invars, given, strict=True))
        numbers |= {v: self.new(v.aval) for v in jaxpr.constvars}
        number = lambda v: self.new(v.aval) if isinstance(v, Literal) else numbers[v]
        for eqn in jaxpr.eqns:
            written = self._record(eqn, [number(v) for v in eqn.invars])
            numbers.update(zip(eqn.outvars, written, strict=True))
        return [number(v) for v in jaxpr.outvars]

    def _record(self, eqn: Any, reads: list[int]) -> list[int]:
        """The numbers of the equation's results."""
        name, params = eqn.primitive.name, eqn.params
        if name in _VIEWS:
            return reads[:1]
        if name in _LOOPS:
            return self._loop(eqn, reads)
        body = next((params[key] for key in _BODIES if key in params), None)
        if body is not None:
            return self.play(getattr(body, "jaxpr", body), reads)
        if name in ("add", "add_any") and (found := self._scattered(reads)):
            scatter, into = found
            return self._append(eqn, scatter.name, (into, *scatter.reads[1:]))
        if name == "dot_general":
            reads = [self._ordered(eqn, side, reads[side]) for side in (0, 1)]
        written = self._append(eqn, name, reads)
        if name == "broadcast_in_dim" and isinstance(eqn.invars[0], Literal):
            self._zeros.add(written[0])
        if name.startswith("scatter") and reads[0] in self._zeros:
            self._scatters[written[0]] = self.ops[-1]
        return written

    def _append(self, eqn: Any, name: str, reads: Sequence[int]) -> list[int]:
        written = [self.new(v.aval) for v in eqn.outvars]
        axes = eqn.params.get("axes", ()) if name.startswith("reduce_") else ()
        leading = 0 in axes and len(axes) < eqn.invars[0].aval.ndim
        self.ops.append(Op(name, tuple(reads), tuple(written), leading=leading))
        return written

    def _scattered(self, reads: list[int]) -> tuple[Op, int] | None:
        """The scatter and x of x + scatter(0, ...); XLA makes it scatter(x, ...)."""
        for one, other in (reads, reads[::-1]):
            if one in self._scatters and self.sizes[one] == self.sizes[other]:
                return self._scatters[one], other
        return None

    def _ordered(self, eqn: Any, side: int, value: int) -> int:
        """An operand of a matmul with its axes as batch, rows, columns."""
        contract, batch = (pair[side] for pair in eqn.params["dimension_numbers"])
        aval = eqn.invars[side].aval
        rest = [a for a in range(aval.ndim) if a not in (*contract, *batch)]
        axes = [*batch, *contract, *rest] if side else [*batch, *rest, *contract]
        if axes == sorted(axes):
            return value
        copy = self.new(aval)
        self.ops.append(Op("relayout", (value,), (copy,)))
        return copy

    def _loop(self, eqn: Any, reads: list[int]) -> list[int]:
        bodies, before, carries = _LOOPS[eqn.primitive.name](eqn.params)
        written = [self.new(v.aval) for v in eqn.outvars]
        turns = tuple(self._turn(body, n, carries) for body, n in bodies)
        kept = reads[before : before + carries]
        pairs = tuple(zip(kept, written[: len(kept)], strict=True))
        name = eqn.primitive.name
        self.ops.append(Op(name, tuple(reads), tuple(written), turns, pairs))
        return written

    def _turn(self, jaxpr: Any, consts: int, carries: int) -> Turn:
        jaxpr, tape = getattr(jaxpr, "jaxpr", jaxpr), Tape(self.unwritten, self.widened)
        given = [tape.new(v.aval) for v in jaxpr.invars]
        results = tape.play(jaxpr, given)
        carry, slices = given[consts : consts + carries], given[consts + carries :]
        return Turn(tape, carry, slices, results[:carries], results[carries:])


def _while(p: dict[str, Any]) -> tuple[Any, int, int]:
    body = getattr(p["body_jaxpr"], "jaxpr", p["body_jaxpr"])
    before = p["cond_nconsts"] + p["body_nconsts"]
    return [(body, p["body_nconsts"])], before, len(body.outvars)


def _scan(p: dict[str, Any]) -> tuple[Any, int, int]:
    if "ft_in" in p:  # jax 0.12
        consts, carry, _ = map(len, p["ft_in"].unpack())
    else:
        consts, carry = p["num_consts"], p["num_carry"]
    return [(p["jaxpr"], consts)], consts, carry


def _cond(p: dict[str, Any]) -> tuple[Any, int, int]:
    inputs = lambda branch: len(getattr(branch, "jaxpr", branch).invars)
    return [(branch, inputs(branch)) for branch in p["branches"]], 0, 0


# ((jaxpr of a turn, its constants) ..., operands before the carry, carries)
_LOOPS = {"cond": _cond, "scan": _scan, "while": _while}
