"""Names inside a traced program that say whom its FLOPs are charged to.

A scope is a part of the name stack that every equation carries, so it survives grad,
vmap, jit, scan and remat, and costs nothing in the compiled program.
"""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax

from uets_jax.errors import UserError, nearest

CATEGORIES = (
    "forward_backward",
    "optimizer",
    "scoring",
    "reference",
    "statistics",
    "probe",
    "growth",
    "policy",
    "evaluation",
)

_CATEGORY = re.compile(rf"(?<![\w. ])category\.({'|'.join(CATEGORIES)})(?![\w ])")
_BRANCH = re.compile(r"(?<![\w. ])branch\.(\w+)")
_TRIPS = re.compile(r"(?<![\w. ])trips\.(\d+)")


def category(name: str) -> AbstractContextManager[Any]:
    """Charges what is traced inside to `name`; the innermost category wins.

    Raises:
      UserError: for a name that is not in `CATEGORIES`.
    """
    if name not in CATEGORIES:
        raise UserError(f"category {name!r}: {nearest(name, CATEGORIES)}")
    return jax.named_scope(f"category.{name}")


def category_of(stack: Any, default: str = CATEGORIES[0]) -> str:
    """The innermost category in a name stack (or its text), else `default`."""
    found = _CATEGORY.findall(str(stack))
    return found[-1] if found else default


def branch(
    name: str,
    predicate: Any,
    true_fun: Callable[..., Any],
    false_fun: Callable[..., Any],
    *operands: Any,
) -> Any:
    """`lax.cond` whose arm is charged by how often a counter saw it taken.

    Whoever traces this also counts, at run time, how often `predicate` was true when
    the branch ran (see `uets_jax.measure.branches.Count.total`). One name is one
    predicate: several branches of one name, such as a branch and its gradient, are
    taken together.

    Raises:
      UserError: for a name that is not one word.
    """
    if not re.fullmatch(r"\w+", name):
        raise UserError(f"branch {name!r}: use letters, digits and underscores")
    with jax.named_scope(f"branch.{name}"):
        return jax.lax.cond(predicate, true_fun, false_fun, *operands)


def branch_of(stack: Any) -> str | None:
    """The innermost branch in a name stack (or its text)."""
    found = _BRANCH.findall(str(stack))
    return found[-1] if found else None


def trips(n: int) -> AbstractContextManager[Any]:
    """Says that a `while_loop` (or `fori_loop`) inside runs `n` times.

    It holds for every loop directly inside, one after the other; a loop within one of
    those needs its own.

    Raises:
      UserError: for a number that is not a whole one, 0 or more.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise UserError(f"trips({n!r}): use a whole number, 0 or more")
    return jax.named_scope(f"trips.{n}")


def trips_of(stack: Any) -> int | None:
    """The innermost trip count in a name stack (or its text)."""
    found = _TRIPS.findall(str(stack))
    return int(found[-1]) if found else None


def without_control(stack: str) -> str:
    """The text of a name stack less its branches and trip counts.

    They belong to the first `cond` and `while` inside; what lies deeper needs its own.
    """
    return _TRIPS.sub("", _BRANCH.sub("", stack))
