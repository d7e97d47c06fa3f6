"""Memory of a program from its trace alone: a walk over the jaxpr that knows who lives.

The rules, after what XLA does with buffers (measured against `memory_analysis()`):

* a matmul, gather, scatter, sort, reduction, branch or loop writes to a buffer of its
  own; other operations are fused into their only reader, and meanwhile keep alive what
  they are computed from;
* a value needs a buffer where it has several readers, where a matmul, a sort, a loop or
  a sum over the leading axis reads it, and as a result of the program; it takes that of
  an operand of its size that nobody reads later;
* a matmul on a CPU wants the axes of its operands in order: a transposed one is copied,
  straight from what it is computed from;
* adding to a scatter into zeros is a scatter in place;
* a loop keeps its carry in place, stacks its outputs, and needs what one turn needs;
* a donated argument lends its buffer to a result of the same shape and dtype.
"""

import collections
import dataclasses
from collections.abc import Iterable, Sequence

from jax.extend.core import ClosedJaxpr

from uets_jax.measure.tape import Op, Tape, Turn, nbytes

# not worth a buffer, however many read it
_CHEAP = {"broadcast_in_dim", "convert_element_type", "iota", "neg", "transpose"}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one program, as `compiled.memory_analysis()` splits them."""

    arguments: int
    outputs: int
    aliased: int
    temporaries: int

    @property
    def peak(self) -> int:
        """All that is allocated while the program runs."""
        return self.arguments + self.outputs - self.aliased + self.temporaries


def peak(
    program: ClosedJaxpr,
    donated: Iterable[bool] = (),
    unwritten: Iterable[int] = (),
    widened: bool = False,
) -> Memory:
    """The memory that XLA will give to a traced program on one device.

    Args:
      program: such as `jax.jit(f).trace(...).jaxpr`.
      donated: of each flat argument; empty: none is.
      unwritten: numbers of elements of values that never lie in memory, such as the
        scores inside a fused attention.
      widened: temporaries of bfloat16 are kept as float32, which XLA does on a CPU.
    """
    jaxpr, tape = program.jaxpr, Tape(frozenset(unwritten), widened)
    results = tape.play(jaxpr, [tape.new(v.aval) for v in jaxpr.invars])
    for result in results:
        tape.sizes[result] = 0  # among the outputs
    form = lambda v: (v.aval.shape, v.aval.dtype)
    size = lambda variables: sum(nbytes(*form(v)) for v in variables)
    gifts = [*donated] or [False] * len(jaxpr.invars)
    lent = [form(v) for v, gift in zip(jaxpr.invars, gifts, strict=True) if gift]
    taken = collections.Counter(lent) & collections.Counter(map(form, jaxpr.outvars))
    return Memory(
        arguments=size(jaxpr.invars),
        outputs=size(jaxpr.outvars),
        aliased=sum(nbytes(*key) * n for key, n in taken.items()),
        temporaries=_Lives(Turn(tape, streamed=results)).peak(),
    )


class _Lives:
    """Which values of a turn have a buffer, from which operation to which.

    The buffers of its carry are counted elsewhere, and free once they are read.
    """

    def __init__(self, turn: Turn) -> None:
        self.sizes, self.carry = turn.tape.sizes, turn.carry
        self.kept, self.streamed = turn.kept, {*turn.streamed}
        self.ops = _needed(turn.tape.ops, {*turn.kept, *turn.streamed})
        self.readers: dict[int, list[int]] = collections.defaultdict(list)
        for i, op in enumerate(self.ops):
            for value in {*op.reads}:
                self.readers[value].append(i)
        made = {w: i for i, op in enumerate(self.ops) for w in op.writes}
        self.first = {v: i for v, i in made.items() if self._buffered(v, i)}
        for value in turn.slices:
            if any(self.ops[i].whole for i in self.readers[value]):
                self.first[value] = self.readers[value][0]
        self.last = self._last_reads()

    def _buffered(self, value: int, maker: int) -> bool:
        readers, op = self.readers[value], self.ops[maker]
        several = len(readers) > 1 and op.name not in _CHEAP
        read_whole = any(self.ops[i].whole for i in readers)
        return op.owns or several or read_whole or value in self.kept

    def _last_reads(self) -> dict[int, int]:
        """The last operation that reads each buffer, fused operations seen through."""
        held = {v: frozenset((v,)) for v in (*self.first, *self.carry)}
        origin: dict[int, frozenset[int]] = {}  # of buffers that a fusion writes
        last: dict[int, int] = {}
        none: frozenset[int] = frozenset()
        for i, op in enumerate(self.ops):
            read = none.union(*(held.get(v, none) for v in op.reads))
            if op.name == "relayout":
                read = origin.get(op.reads[0], read)
            buffered = op.owns or any(w in self.first for w in op.writes)
            for w in op.writes:
                if w not in self.first:
                    held[w] = read
                elif not op.owns:
                    origin[w] = read
            if buffered or self.streamed.intersection(op.writes):
                last.update(dict.fromkeys(read, i))
        end = len(self.ops)
        for value in self.kept:
            last.update(dict.fromkeys(held.get(value, none), end))
        return last

    def peak(self) -> int:
        """The most bytes alive at once, beside arguments and carry."""
        born, dying = collections.defaultdict(list), collections.defaultdict(list)
        for value, i in self.first.items():
            born[i].append(value)
        for value in {*self.first, *self.carry}:
            dying[max(self.last.get(value, 0), self.first.get(value, 0))].append(value)
        start = live = top = sum(self.sizes[v] for v in self.carry)
        for i, op in enumerate(self.ops):
            live += sum(self.sizes[v] for v in born[i])
            inner = max((_Lives(turn).peak() for turn in op.turns), default=0)
            top = max(top, live - self._reused(op, dying[i]) + inner)
            live -= sum(self.sizes[v] for v in dying[i])
        return top - start

    def _reused(self, op: Op, dying: list[int]) -> int:
        """Bytes of the results that take the buffer of an operand."""
        bytes_ = sum(
            min(self.sizes[a], self.sizes[b]) for a, b in op.carries if a in dying
        )
        if op.in_place:
            free = [self.sizes[v] for v in dying if v not in op.writes]
            for w in op.writes:
                if w in self.first and self.sizes[w] in free:
                    free.remove(self.sizes[w])
                    bytes_ += self.sizes[w]
        return bytes_


def _needed(ops: Sequence[Op], results: set[int]) -> list[Op]:
    """The operations that the results depend on."""
    wanted, kept = set(results), []
    for op in reversed(ops):
        if wanted.intersection(op.writes):
            wanted.update(op.reads)
            kept.append(op)
    return kept[::-1]
