"""FLOPs of a traced program, by category: a walk over its jaxpr.

XLA's own `cost_analysis()` counts the body of a loop once and the costlier arm of a
branch always. The walk multiplies scans by their length and charges a branch by the
arms that a counter saw. Dead code is removed first, as XLA does.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.interpreters import partial_eval

from uets_jax.errors import UserError
from uets_jax.measure.rules import RULES, Cost
from uets_jax.measure.scopes import (
    CATEGORIES,
    branch_of,
    category_of,
    trips_of,
    without_control,
)

__all__ = ["Branch", "Cost", "Costs", "Count", "count"]

Costs = dict[str, Cost]  # by category


@dataclasses.dataclass(frozen=True)
class Branch:
    """A counted `cond`.

    times:  runs per run of what holds it: the program, or an arm of another branch.
    holder: (name, arm) of that other branch.
    arms:   costs of (predicate false, predicate true), once.
    """

    times: int
    holder: tuple[str, int] | None
    arms: tuple[Costs, Costs]


@dataclasses.dataclass(frozen=True)
class Count:
    """What one call of a program costs: `always`, and one arm of each branch."""

    always: Costs = dataclasses.field(default_factory=dict)
    branches: dict[str, Branch] = dataclasses.field(default_factory=dict)

    def __add__(self, other: "Count") -> "Count":
        branches = dict(self.branches)
        for name, new in other.branches.items():
            branches[name] = (
                _join(name, branches[name], new) if name in branches else new
            )
        return Count(_sum(self.always, other.always), branches)

    def __mul__(self, times: int) -> "Count":
        def repeat(b: Branch) -> Branch:
            return (
                dataclasses.replace(b, times=b.times * times) if b.holder is None else b
            )

        branches = {name: repeat(b) for name, b in self.branches.items()}
        return Count(_scaled(self.always, times), branches)

    __rmul__ = __mul__

    def total(self, taken: Mapping[str, int] | None = None, calls: int = 1) -> Costs:
        """Costs by category of `calls` calls of the program.

        A branch inside a scan runs as often as the scan's body does, one inside an arm
        as often as that arm is taken: what counts is the executed predicate.

        Args:
          taken: how often each branch's predicate was true, in all these calls; names
            of branches that are dead code, so not in `branches`, are passed over.

        Raises:
          UserError: for a branch without its number, or a number that exceeds the runs
            of the branch.
        """
        taken = dict(taken or {})
        if missing := ", ".join(sorted(self.branches.keys() - taken.keys())):
            raise UserError(f"taken: {missing}: say how often its predicate was true")
        costs = _scaled(self.always, calls)
        for name, branch in self.branches.items():
            runs = self._runs(name, taken, calls)
            if not 0 <= taken[name] <= runs:
                raise UserError(f"taken: {name}: {taken[name]} of {runs} runs")
            costs = _sum(costs, _scaled(branch.arms[0], runs - taken[name]))
            costs = _sum(costs, _scaled(branch.arms[1], taken[name]))
        return costs

    def _runs(self, name: str, taken: Mapping[str, int], calls: int) -> int:
        branch = self.branches[name]
        if branch.holder is None:
            return branch.times * calls
        outer, arm = branch.holder
        rest = self._runs(outer, taken, calls) - taken[outer]
        return branch.times * (taken[outer] if arm else rest)


def count(closed_jaxpr: Any, default: str = CATEGORIES[0]) -> Count:
    """The cost of one call of `jax.make_jaxpr(f)(...)`.

    Args:
      default: category of what stands in no `scopes.category`.

    Raises:
      UserError: for a `cond` with unequal arms and no counter, a `while` without trip
        count, or a primitive without a rule; it says what to add.
    """
    return _walk(closed_jaxpr, "", default)


def _sum(a: Costs, b: Costs) -> Costs:
    return {k: a.get(k, Cost()) + b.get(k, Cost()) for k in (*a, *b)}


def _scaled(costs: Costs, times: int) -> Costs:
    return {k: times * cost for k, cost in costs.items()} if times else {}


def _join(name: str, a: Branch, b: Branch) -> Branch:
    if (a.times, a.holder) != (b.times, b.holder):
        raise UserError(
            f"branch {name!r} runs in two places that are not taken equally often: "
            "give each scopes.branch a name of its own"
        )
    arms = _sum(a.arms[0], b.arms[0]), _sum(a.arms[1], b.arms[1])
    return Branch(a.times, a.holder, arms)


def _walk(jaxpr: Any, stack: str, default: str) -> Count:
    """Sum over the live equations of an open or closed jaxpr."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    live, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars), True)
    whole = Count()
    for eqn in live.eqns:
        inner = f"{stack}/{eqn.source_info.name_stack}"
        whole = whole + _equation(eqn, inner, default)
    return whole


def _equation(eqn: Any, stack: str, default: str) -> Count:
    name = eqn.primitive.name
    if name in RULES:
        cost = RULES[name](eqn)
        return Count({category_of(stack, default): cost}) if cost != Cost() else Count()
    if name in _NESTED:
        return _NESTED[name](eqn, stack, default)
    raise UserError(f"{name}: no rule counts it: add one to uets_jax/measure/rules.py")


def _call(eqn: Any, stack: str, default: str) -> Count:
    """A program inside the program, run once."""
    body = next(eqn.params[f] for f in _BODIES if f in eqn.params)
    return _walk(body, stack, default)


def _scan(eqn: Any, stack: str, default: str) -> Count:
    return _walk(eqn.params["jaxpr"], stack, default) * eqn.params["length"]


def _while(eqn: Any, stack: str, default: str) -> Count:
    n = trips_of(stack)
    if n is None:
        where = stack.strip("/") or "the program"
        raise UserError(
            f"while in {where}: its trip count is unknown: put the loop in "
            "`with scopes.trips(n):`, or use lax.scan"
        )
    inner = without_control(stack)
    test = _walk(eqn.params["cond_jaxpr"], inner, default)
    return _walk(eqn.params["body_jaxpr"], inner, default) * n + test * (n + 1)


def _cond(eqn: Any, stack: str, default: str) -> Count:
    """One arm: the platform's, the one that is counted, or any of equal ones."""
    inner = without_control(stack)
    arms = [_walk(b, inner, default) for b in _arms(eqn)]
    name = branch_of(stack)
    if name is not None and len(arms) == 2:
        return _counted(name, *arms)
    if any(arm != arms[0] for arm in arms):
        where = stack.strip("/") or "the program"
        raise UserError(
            f"cond in {where}: its arms differ in cost: use "
            "scopes.branch(name, ...) and count how often its predicate is true"
        )
    return arms[0]


def _counted(name: str, false: Count, true: Count) -> Count:
    """A branch, and the branches inside its arms, held by them."""
    whole = Count({}, {name: Branch(1, None, (false.always, true.always))})
    for number, arm in enumerate((false, true)):
        held = {k: _hold(b, name, number) for k, b in arm.branches.items()}
        whole = whole + Count({}, held)
    return whole


def _hold(branch: Branch, name: str, arm: int) -> Branch:
    if branch.holder is not None:
        return branch
    return dataclasses.replace(branch, holder=(name, arm))


def _arms(eqn: Any) -> tuple[Any, ...]:
    """The arms that may run here: of `lax.platform_dependent`, only this platform's."""
    arms, platforms = eqn.params["branches"], eqn.params.get("branches_platforms")
    if platforms is None:
        return arms
    here = jax.default_backend()
    words = {"cuda", "rocm", "gpu"} if here == "gpu" else {here}
    pairs = zip(arms, platforms, strict=True)
    mine = tuple(arm for arm, names in pairs if names is None or words & {*names})
    return mine[:1] or arms


def _shard_map(eqn: Any, stack: str, default: str) -> Count:
    """One device's part times the devices that run it."""
    axes = eqn.params.get("newly_manual_axes", eqn.params.get("manual_axes"))
    devices = math.prod(eqn.params["mesh"].shape[axis] for axis in axes)
    return _walk(eqn.params["jaxpr"], stack, default) * devices


def _reduce(eqn: Any, stack: str, default: str) -> Count:
    """A reduction by a function of its own, once per input that it folds."""
    folded = eqn.invars[0].aval.size - eqn.outvars[0].aval.size
    return _walk(eqn.params["jaxpr"], stack, default) * folded


def _reduce_window(eqn: Any, stack: str, default: str) -> Count:
    """A windowed reduction by a function of its own."""
    folded = math.prod(eqn.params["window_dimensions"]) - 1
    times = folded * eqn.outvars[0].aval.size
    return _walk(eqn.params["jaxpr"], stack, default) * times


def _expanded(eqn: Any, stack: str, default: str) -> Count:
    """A primitive that is defined by a traceable function of its operands."""
    primitive = eqn.params["_prim"]
    shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars]
    operands = jax.tree.unflatten(primitive.in_tree, shapes)
    return _walk(jax.make_jaxpr(primitive.expand)(*operands), stack, default)


def _linear_solve(eqn: Any, stack: str, default: str) -> Count:
    """Only `solve` runs; the products are there for derivatives."""
    return _walk(eqn.params["jaxprs"].solve, stack, default)


_BODIES = ("jaxpr", "call_jaxpr", "call")  # the names differ by primitive and version
_NESTED: dict[str, Callable[[Any, str, str], Count]] = {
    **dict.fromkeys(("jit", "pjit", "closed_call", "core_call", "eval_jaxpr"), _call),
    **dict.fromkeys(("remat2", "checkpoint", "composite", "compute_on"), _call),
    **dict.fromkeys(("custom_jvp_call", "custom_vjp_call", "custom_vmap_call"), _call),
    "scan": _scan,
    "while": _while,
    "cond": _cond,
    "shard_map": _shard_map,
    "reduce": _reduce,
    "reduce_window": _reduce_window,
    "custom_linear_solve": _linear_solve,
    "call_hi_primitive": _expanded,
}
