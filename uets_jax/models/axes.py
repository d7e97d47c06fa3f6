"""What each axis of each parameter means: one table for all who need to know.

Sharding, Muon's matrices and weight decay (later: growth) read it, so that a new
parameter is described once. A scan-stacked leaf has the axis `layer` in front.
"""

import itertools
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp

from uets_jax.types import Params

Axes = tuple[str, ...]

# The last two names of a parameter's path, less the layer axis.
_AXES: dict[tuple[str, str], Axes] = {
    ("embed", "table"): ("vocab", "width"),
    ("positions", "table"): ("position", "width"),
    ("bigram", "table"): ("bucket", "width"),
    ("trigram", "table"): ("bucket", "width"),
    ("query", "w"): ("width", "head", "dim"),
    ("key", "w"): ("width", "kv_head", "dim"),
    ("value", "w"): ("width", "kv_head", "dim"),
    ("output", "w"): ("head", "dim", "width"),
    ("query", "b"): ("head", "dim"),
    ("key", "b"): ("kv_head", "dim"),
    ("value", "b"): ("kv_head", "dim"),
    ("output", "b"): ("width",),
    ("up", "w"): ("width", "hidden"),
    ("gate", "w"): ("width", "hidden"),
    ("down", "w"): ("hidden", "width"),
    ("up", "b"): ("hidden",),
    ("gate", "b"): ("hidden",),
    ("down", "b"): ("width",),
    ("router", "w"): ("width", "expert"),
    ("query_norm", "scale"): ("dim",),
    ("key_norm", "scale"): ("dim",),
    ("attention", "value_mix"): (),
    ("head", "w"): ("width", "vocab"),
    ("blend", "w"): ("width", "share"),
    ("blend", "known"): ("order",),
    ("blend", "b"): (),
}
_EACH_EXPERT = ("up", "gate", "down")  # below `experts`: one of each per expert
_NORMS = ("attention_norm", "mlp_norm", "final_norm")


def names(path: tuple[Hashable, ...]) -> tuple[str, ...]:
    """The plain names along a key path of `jax.tree_util`."""
    return tuple(str(getattr(k, "key", getattr(k, "name", k))) for k in path)


def axes_of(path: tuple[Hashable, ...], rank: int) -> Axes:
    """The meaning of each axis of the parameter at `path`.

    A parameter that the table does not know (of somebody's own model) has axes `own`.
    """
    where = names(path)
    parent, name = ("", "", *where)[-2:]
    axes = ("width",) if parent in _NORMS else _AXES.get((parent, name))
    if "backoff" in where:
        axes = ("counted",) * rank
    if axes is not None and "experts" in where and parent in _EACH_EXPERT:
        axes = ("expert", *axes)
    if axes is not None and "blocks" in where:
        axes = ("layer", *axes)
    return axes if axes is not None and len(axes) == rank else ("own",) * rank


def map_axes(fn: Callable[[Axes], Any], params: Params) -> Any:
    """A tree like `params` that holds `fn(axes)` of each leaf."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: fn(axes_of(path, jnp.ndim(leaf))), params
    )


def is_matrix(axes: Axes) -> bool:
    """A weight that multiplies activations or is looked up: decayed, not a gain."""
    known = "width" in axes and len(axes) - _stacked(axes) > 1
    return known or axes.count("own") > 1


def hidden_matrix(axes: Axes) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """(input axes, output axes) of a matrix inside a block, else None.

    A router is none: its outputs are scores of experts, not units.
    """
    first, last = _stacked(axes), len(axes) - 1
    if axes[:1] != ("layer",) or not is_matrix(axes) or axes[last] == "expert":
        return None
    if axes[last] == "width":
        return tuple(range(first, last)), (last,)
    return (first,), tuple(range(first + 1, len(axes)))


def layer_axis(axes: Axes) -> int:
    """0 where axis 0 counts layers, else -1."""
    return 0 if axes[:1] == ("layer",) else -1


def role(axes: Axes) -> str:
    """embedding, hidden, head or vector: what a learned rule tells apart."""
    if axes[-1:] == ("vocab",):
        return "head"
    if axes[:1] in (("vocab",), ("position",), ("bucket",), ("counted",)):
        return "embedding"
    return "vector" if hidden_matrix(axes) is None else "hidden"


def _stacked(axes: Axes) -> int:
    """Leading axes along which whole parameters are stacked."""
    stacks = itertools.takewhile(("layer", "expert").__contains__, axes)
    return len(list(stacks))
