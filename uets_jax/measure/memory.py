"""Peak memory of a traced program, before anything is compiled.

A walk over the jaxpr that keeps account of which values are alive, after the rules by
which XLA gives buffers out:

* a matmul, gather, scatter, sort, reduction, loop or branch writes its result to a
  buffer of its own; other operations (elementwise, broadcast, transpose, slice) are
  fused into what reads them, and keep alive what they are computed from;
* unless a matmul, a loop, a sort or a reduction over the leading axis reads their
  result, or it is a result of the program: then it needs a buffer, which can be that
  of an operand of the same size that nobody reads later;
* a loop keeps its carry in place, stacks its outputs, and needs what one turn needs;
* a donated argument gives its buffer to the result of the same shape and dtype.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from jax.extend.core import ClosedJaxpr, Literal

# their operands and results have buffers
_WHOLE = {
    "dot_general", "ragged_dot_general", "conv_general_dilated", "sort", "top_k", "gather", "scatter", "scatter-add",
    "scatter_add", "scatter-mul", "cumsum", "cumlogsumexp", "cummax", "cumprod",
    "cholesky", "triangular_solve", "svd", "qr", "eigh", "custom_vjp_call",
    "dot_product_attention_fwd", "dot_product_attention_bwd",
}
_VIEWS = {"reshape", "squeeze", "expand_dims", "stop_gradient", "copy_p", "sharding_constraint"}
_CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one executable, by what they are for, on one device."""

    arguments: int
    outputs: int
    aliased: int
    temporaries: int

    @property
    def peak(self) -> int:
        """All that is allocated while the program runs."""
        return self.arguments + self.outputs - self.aliased + self.temporaries


class _Op(NamedTuple):
    """One equation, its values by number; `whole`: its operands need buffers."""

    name: str
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    whole: bool
    owns: bool
    inner: int
    carry: tuple[tuple[int, int], ...]


@dataclasses.dataclass
class _Tape:
    """The equations of a jaxpr, nested calls written out; values are numbers."""

    sizes: list[int] = dataclasses.field(default_factory=list)
    ops: list[_Op] = dataclasses.field(default_factory=list)
    zeros: set = dataclasses.field(default_factory=set)
    zero_scatters: dict = dataclasses.field(default_factory=dict)

    def new(self, aval: Any) -> int:
        self.sizes.append(nbytes(aval))
        return len(self.sizes) - 1

    def play(self, jaxpr: Any, given: Sequence[int]) -> list[int]:
        """Appends the equations; returns the numbers of the results (-1: literal)."""
        names: dict[Any, int] = dict(zip(jaxpr.invars, given, strict=True))
        for var in jaxpr.constvars:
            names[var] = self.new(var.aval)
        look = lambda v: -1 if isinstance(v, Literal) else names[v]
        for eqn in jaxpr.eqns:
            reads = [look(v) for v in eqn.invars]
            names.update(zip(eqn.outvars, self._equation(eqn, reads), strict=True))
        return [look(v) for v in jaxpr.outvars]

    def _equation(self, eqn: Any, reads: list[int]) -> list[int]:
        name = eqn.primitive.name
        if name in _VIEWS and reads[0] >= 0:
            return [reads[0]]
        inner = next((eqn.params[k] for k in _CALLS if k in eqn.params), None)
        if inner is not None and name not in ("scan", "while", "cond"):
            return self.play(getattr(inner, "jaxpr", inner), [r if r>=0 else self.new(v.aval) for r, v in zip(reads, eqn.invars)])
        import os
        V = os.environ.get("V", "")
        if "c" in V and name in ("add_any", "add"):
            # scatter into zeros, then added
            for k in (0, 1):
                if reads[k] in self.zero_scatters and eqn.invars[k].aval.shape == eqn.invars[1-k].aval.shape and reads[1-k] >= 0:
                    j = self.zero_scatters[reads[k]]
                    op = self.ops[j]
                    w = self.new(eqn.outvars[0].aval)
                    self.ops[j] = op._replace(name="skip", reads=(), writes=(), whole=False, owns=False)
                    self.ops.append(op._replace(reads=(reads[1-k], *op.reads[1:]), writes=(w,)))
                    return [w]
        writes = [self.new(v.aval) for v in eqn.outvars]
        if name == "broadcast_in_dim" and reads[0] < 0: self.zeros.add(writes[0])
        if name.startswith("scatter") and reads[0] in self.zeros: self.zero_scatters[writes[0]] = len(self.ops)
        extra, carry = 0, ()
        if "b" in V and name == "dot_general":
            (lc, rc), (lb, rb) = eqn.params["dimension_numbers"]
            for k, (con, bat) in enumerate(((lc, lb), (rc, rb))):
                nd = len(eqn.invars[k].aval.shape)
                rest = [d for d in range(nd) if d not in con and d not in bat]
                order = [*bat, *rest, *con] if k == 0 else [*bat, *con, *rest]
                if "B" in V: 
                    ok = order == sorted(order) or [*bat, *rest, *con] == sorted(order) or [*bat, *con, *rest] == sorted(order)
                else: ok = order == sorted(order)
                if not ok and reads[k] >= 0:
                    t = self.new(eqn.invars[k].aval)
                    self.ops.append(_Op("relayout", (reads[k],), (t,), False, False, 0, ()))
                    reads[k] = t
        if name == "scan":
            extra, carry = _scan(eqn, reads, writes)
        elif name == "while":
            extra, carry = _while(eqn, reads, writes)
        elif name == "cond":
            extra = max(_turn(b.jaxpr, 0, 0)  for b in eqn.params["branches"])
        whole = (name in _WHOLE and not ("g" in V and name == "gather")) or name in ("scan", "while", "cond")
        reduces = name.startswith(("reduce_", "arg"))
        if reduces and 0 in eqn.params.get("axes", ()):
            whole = True
        known = tuple(r for r in reads if r >= 0)
        op = _Op(name, known, tuple(writes), whole, whole or reduces or name == "gather", extra, carry)
        self.ops.append(op)
        return writes


def nbytes(aval: Any) -> int:
    """Bytes of an array of this shape and dtype."""
    size = getattr(aval.dtype, "itemsize", 4)
    return math.prod(aval.shape) * size


def _scan(eqn, reads, writes):
    p = eqn.params
    n, c = p["num_consts"], p["num_carry"]
    extra = _turn(p["jaxpr"].jaxpr, n, c)
    return extra, tuple(zip(reads[n : n + c], writes[:c], strict=True))


def _while(eqn, reads, writes):
    p = eqn.params
    a, b = p["cond_nconsts"], p["body_nconsts"]
    extra = _turn(p["body_jaxpr"].jaxpr, b, len(writes))
    return extra, tuple(zip(reads[a + b :], writes, strict=True))


def _turn(jaxpr: Any, consts: int, carry: int) -> int:
    """Temporaries of one turn of a loop."""
    tape = _Tape()
    given = [tape.new(v.aval) for v in jaxpr.invars]
    results = tape.play(jaxpr, given)
    carried = range(consts, consts + carry)
    free = [given[i] for i in range(len(given)) if i not in carried or not carry]
    xs = given[consts + carry :]
    owned = [given[i] for i in carried]
    return _temporaries(tape, consts=set(given[:consts]), slices=set(xs), owned=owned, results=results[:carry], streamed=results[carry:])


def _temporaries(tape, consts, slices, owned, results, streamed):
    sizes = tape.sizes
    needed = {*results, *streamed}
    ops = []
    for op in reversed(tape.ops):
        if needed & set(op.writes):
            needed |= set(op.reads)
            ops.append(op)
    ops.reverse()
    import os
    V = os.environ.get("V", "")
    if "T" in V:
        moved = []
        late = {}
        owner = {w: op for op in ops for w in op.writes}
        for op in ops:
            if op.name == "relayout" and op.reads[0] in owner and not owner[op.reads[0]].owns:
                late.setdefault(op.reads[0], []).append(op)
        skip = {id(o) for l in late.values() for o in l}
        for op in ops:
            if id(op) in skip: continue
            moved.append(op)
            for w in op.writes: moved += late.get(w, [])
        ops = moved
    readers: dict[int, list[int]] = {}
    for i, op in enumerate(ops):
        for r in op.reads:
            readers.setdefault(r, []).append(i)
    made = {w: i for i, op in enumerate(ops) for w in op.writes}
    buffered = set()
    for w, i in made.items():
        if ops[i].owns or w in results or any(ops[j].whole for j in readers.get(w, ())):
            buffered.add(w)
    import os
    V = os.environ.get("V", "")
    if "a" in V:
        for w, i in made.items():
            if ops[i].name in ("exp", "tanh", "log", "logistic", "erf", "pow", "rsqrt", "sqrt", "sin", "cos", "log1p","exp2") and len(set(readers.get(w, ()))) > 1:
                buffered.add(w)
    if "m" in V:
        for w, i in made.items():
            if len(set(readers.get(w, ()))) > 1 and ops[i].name not in ("broadcast_in_dim", "iota", "transpose", "convert_element_type", "neg"):
                buffered.add(w)
    if "d" in V:
        for w, i in made.items():
            rs = set(readers.get(w, ()))
            if len(rs) > 1 and any(ops[j].name.startswith("reduce_") or (ops[j].name in ("square","integer_pow","mul","exp") and any(ops[q].name.startswith("reduce_") for q in readers.get(ops[j].writes[0],())) ) for j in rs) and ops[i].name in ("sub","mul","add","div"):
                buffered.add(w)
    for s in slices:
        if any(ops[j].whole for j in readers.get(s, ())):
            buffered.add(s)
    # which buffers a value is computed from
    sources: dict[int, frozenset[int]] = {}
    through = {}
    def source(v):
        if v in buffered or v in owned: return frozenset((v,))
        return sources.get(v, frozenset())
    last: dict[int, int] = {}
    for i, op in enumerate(ops):
        got = frozenset().union(*(source(r) for r in op.reads))
        if "t" in V and op.name == "relayout" and op.reads[0] in through:
            got = through[op.reads[0]]
        if any(w in buffered for w in op.writes) or op.owns:
            for g in got: last[g] = i
        for w in op.writes:
            if w not in buffered: sources[w] = got
            elif not op.owns: through[w] = got
        # written out as it is made
        for w in op.writes:
            if w in streamed:
                for g in source(w): last[g] = max(last.get(g, i), i)
    end = len(ops)
    for r in results:
        for g in source(r) if r >= 0 else (): last[g] = end
    first = {v: made.get(v, 0) for v in buffered}
    for s in slices & buffered:
        first[s] = min(readers[s])
    start = sum(sizes[o] for o in owned)
    # walk
    births: dict[int, list[int]] = {}
    deaths: dict[int, list[int]] = {}
    for v in buffered:
        births.setdefault(first[v], []).append(v)
    for v in itertools.chain(buffered, owned):
        deaths.setdefault(max(last.get(v, 0), first.get(v, 0)), []).append(v)
    live = top = start
    for i, op in enumerate(ops):
        born = births.get(i, [])
        dying = [v for v in deaths.get(i, []) if v not in born]
        live += sum(sizes[v] for v in born)
        spare = 0
        pairs = dict(op.carry)
        for a, b in op.carry:
            if a in dying:
                spare += sizes[a]
        if (not op.whole and op.name not in ("relayout", "transpose", "rev", "concatenate", "pad", "gather", "reduce_sum", "reduce_max")) or op.name.startswith(("scatter", "dynamic_update")):
            left = [sizes[v] for v in dying]
            for w in op.writes:
                if w in buffered and sizes[w] in left:
                    left.remove(sizes[w]); spare += sizes[w]
        now = live - spare + op.inner
        if now > top: top = now
        live -= sum(sizes[v] for v in deaths.get(i, []))
    return top - start


def peak(closed: ClosedJaxpr, donated: Iterable[bool] = ()) -> Memory:
    jaxpr = closed.jaxpr
    tape = _Tape()
    given = [tape.new(v.aval) for v in jaxpr.invars]
    results = tape.play(jaxpr, given)
    donated = list(donated) or [False] * len(given)
    pool: dict[Any, int] = {}
    for v, d in zip(jaxpr.invars, donated, strict=True):
        if d: pool[v.aval.shape, v.aval.dtype] = pool.get((v.aval.shape, v.aval.dtype), 0) + 1
    aliased = 0
    hosted = []
    for v, r in zip(jaxpr.outvars, results):
        key = v.aval.shape, v.aval.dtype
        if pool.get(key):
            pool[key] -= 1
            aliased += nbytes(v.aval)
    arguments = sum(nbytes(v.aval) for v in jaxpr.invars)
    outputs = sum(nbytes(v.aval) for v in jaxpr.outvars)
    temp = _temporaries(tape, set(given), set(), [], [], [r for r in results if r>=0])
    return Memory(arguments, outputs, aliased, temp)
