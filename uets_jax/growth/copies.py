"""Which leaves of an optimizer's state hold parameters, not moments of gradients."""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Jaxpr, Literal, Var

from uets_jax.models.axes import names

PASSING = ("copy", "copy_p", "convert_element_type", "optimization_barrier")


def weight_copies(
    init: Callable[[Any], Any], params: Any
) -> frozenset[tuple[str, ...]]:
    """Paths of the leaves of `init(params)` that are parameters, copied or cast.

    Such are the iterate of schedule-free, slow weights of a lookahead, an anchor that
    is decayed towards. Found in the trace, so nothing is computed.

    Args:
      init: of an optax transformation or a component.
      params: or their shapes.
    """
    closed, out = jax.make_jaxpr(init, return_shape=True)(params)
    paths = [names(path) for path, _ in jax.tree_util.tree_leaves_with_path(out)]
    passed = _passed(closed.jaxpr, closed.jaxpr.invars)
    pairs = zip(paths, closed.jaxpr.outvars, strict=True)
    return frozenset(path for path, var in pairs if _known(var, passed))


def _passed(jaxpr: Jaxpr, sources: list[Var]) -> set[Var]:
    """Variables with the value of a source."""
    found = set(sources)
    for eqn in jaxpr.eqns:
        inner = eqn.params.get("jaxpr")
        if eqn.primitive.name in PASSING and _known(eqn.invars[0], found):
            found.update(eqn.outvars)
        elif hasattr(inner, "jaxpr") and len(inner.jaxpr.invars) == len(eqn.invars):
            pairs = zip(inner.jaxpr.invars, eqn.invars, strict=True)
            deep = _passed(inner.jaxpr, [i for i, v in pairs if _known(v, found)])
            ends = zip(eqn.outvars, inner.jaxpr.outvars, strict=False)
            found.update(o for o, i in ends if _known(i, deep))
    return found


def _known(var: Any, found: set[Var]) -> bool:
    return not isinstance(var, Literal) and var in found
