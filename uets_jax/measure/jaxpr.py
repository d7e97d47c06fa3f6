"""FLOPs of a traced program, by category: a walk over its jaxpr.

XLA's own `cost_analysis()` counts the body of a loop once and the costlier arm of a
branch always. The walk multiplies scans by their length and charges a branch by the
arms that a counter saw. Dead code is removed first, as XLA does.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.interpreters import partial_eval

from uets_jax.errors import UserError
from uets_jax.measure.branches import Count, branched
from uets_jax.measure.rules import RULES
from uets_jax.measure.scopes import (
    CATEGORIES,
    branch_of,
    category_of,
    trips_of,
    without_control,
)
from uets_jax.measure.work import Cost


def count(closed_jaxpr: Any, default: str = CATEGORIES[0]) -> Count:
    """The cost of one call of `jax.make_jaxpr(f)(...)`.

    Args:
      default: category of what stands in no `scopes.category`.

    Raises:
      UserError: for a `cond` with unequal arms and no counter, a `while` without trip
        count, or a primitive without a rule; it says what to add.
    """
    return _walk(closed_jaxpr, "", default)


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
        return branched(name, *arms)
    if any(arm != arms[0] for arm in arms):
        where = stack.strip("/") or "the program"
        raise UserError(
            f"cond in {where}: its arms differ in cost: use "
            "scopes.branch(name, ...) and count how often its predicate is true"
        )
    return arms[0]


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
