"""What becomes of every parameter when the shape changes: static, without arrays.

    plan(config, op) -> (config after, {path of a new leaf: Move})

A move says for each axis of the new leaf from which entry of the old one each of its
entries comes. The same moves carry parameters, whatever an optimizer keeps beside them,
and component states.

Exact ops leave the function as it is:

* depth (identity, random): new layers whose `output` and `down` are zero;
* heads, hidden (new): new units with zero rows on the output side, so that only those
  rows have a gradient at first (with all zero nothing would ever have one);
* heads, hidden (split): two halves W/2 + N and W/2 - N on the output side. N differs
  from pair to pair, without it both halves would have equal gradients for ever;
* width (duplicate): the stream becomes [x, x]; what reads it is W/2 + N and W/2 - N,
  what writes it is copied, and the final norm is halved where the head is the
  embedding. Norms of [x, x] are those of x;
* experts: copies of the MLP behind a router whose weights sum to 1, as long as no token
  is dropped;
* memory_rows: the table repeated (see `models.memory`);
* frozen: nothing moves, neither parameters nor what an optimizer keeps.

Duplicates: with r copies whose weights are s times the old, each gets 1 / (r s) times
the gradient; first moments move by that factor and second ones by its square (Shen et
al. 2022, arXiv:2203.06211, have the case r = 2).
"""

import dataclasses
import functools
from typing import Any

import jax

from uets_jax.config import ExperimentConfig, ModelConfig
from uets_jax.errors import UserError
from uets_jax.growth.stages import WAYS, Op, prunes, resized
from uets_jax.models.axes import Axes, axes_of, names
from uets_jax.models.transformer import make_model

Path = tuple[str, ...]
FRESH = -1


@dataclasses.dataclass(frozen=True)
class AxisMove:
    """What happens along one axis; every field has an entry per new index.

    source: old index, `FRESH` for none; or one such tuple per layer of the new leaf.
    scale:  factor of the weights.
    grad:   factor of the gradient, hence of first moments; 0: moments begin anew.
    sign:   of the noise that parts two copies: +n and -n for pair n, 0 for none.
    new:    the learning rate of the entry is warmed up.
    """

    source: tuple[Any, ...]
    scale: tuple[float, ...] = ()
    grad: tuple[float, ...] = ()
    sign: tuple[int, ...] = ()
    new: tuple[bool, ...] = ()


@dataclasses.dataclass(frozen=True)
class Move:
    """How one new leaf is made.

    old:    path of the leaf that it comes from; None: it is as initialised.
    axes:   (axis of the new leaf, its move); other axes stay as they are.
    insert: an axis of size 1 that the old leaf gets first.
    zero:   fresh entries are 0, else as initialised.
    """

    old: Path | None
    axes: tuple[tuple[int, AxisMove], ...] = ()
    insert: int | None = None
    zero: bool = False


Moves = dict[Path, Move]


def plan(config: ExperimentConfig, op: Op) -> tuple[ExperimentConfig, Moves]:
    """The config after an op, and what becomes of every leaf.

    Raises:
      UserError: for an op that can't be applied to the model.
    """
    model = resized(config.model, op)
    return dataclasses.replace(config, model=model), moves(config.model, op)


@functools.lru_cache(maxsize=64)
def moves(model: ModelConfig, op: Op) -> Moves:
    """The move of every leaf of the model after the op; raises as `plan`."""
    after = resized(model, op)
    if prunes(model, op):
        _check_keep(model, op)
    op = dataclasses.replace(op, how=op.how or WAYS.get(op.field, ("",))[0])
    old = {names(path) for path, _ in _leaves(model)}
    found = {}
    for path, leaf in _leaves(after):
        axes = axes_of(path, leaf.ndim)
        found[names(path)] = _move(names(path), axes, old, model, after, op)
    return found


def _check_keep(model: ModelConfig, op: Op) -> None:
    """Raises `UserError` unless `keep` names what stays, in rising order."""
    rows, units = 1 if op.field == "depth" else model.depth, getattr(model, op.field)
    rising = all(
        len(row) == op.size and sorted({*row} & {*range(units)}) == list(row)
        for row in op.keep
    )
    if len(op.keep) != rows or not rising:
        raise UserError(
            f"growth: {op}: `keep` must name, for each of {rows}, the {op.size} of "
            f"{units} that stay, rising"
        )
    group = model.heads // model.kv_heads if op.field == "heads" else 1
    whole = lambda row: all(row.count(g) in (0, group) for g in row)
    if not all(whole([i // group for i in row]) for row in op.keep):
        raise UserError(f"growth: {op}: `keep` must name whole groups of {group} heads")


def is_exact(op: Op, model: ModelConfig) -> bool:
    """Whether the function stays as it is; of experts, if none can be full."""
    if prunes(model, op):
        return False
    if op.field == "experts":
        return model.capacity == 0
    return op.how not in ("stack", "interleave", "middle")


@functools.lru_cache(maxsize=64)
def _leaves(model: ModelConfig) -> tuple[tuple[Any, Any], ...]:
    """(path, shape) of every parameter."""
    abstract = jax.eval_shape(make_model(model).init, jax.random.key(0))
    return tuple(jax.tree_util.tree_leaves_with_path(abstract))


def _move(
    path: Path,
    axes: Axes,
    old: set[Path],
    before: ModelConfig,
    after: ModelConfig,
    op: Op,
) -> Move:
    if op.field == "experts":
        return _into_experts(path, axes, old, after)
    if path not in old:
        return Move(None)
    if op.field == "frozen":
        return Move(path)
    make = {
        "depth": _depth,
        "heads": _heads,
        "hidden": _hidden,
        "width": _width,
        "memory_rows": _rows,
    }[op.field]
    return make(path, axes, before, after, op)


# depth


def _depth(
    path: Path, axes: Axes, before: ModelConfig, after: ModelConfig, op: Op
) -> Move:
    if "layer" not in axes:
        return Move(path)
    if op.size < before.depth:
        return Move(path, ((0, AxisMove(op.keep[0])),))
    n, extra = before.depth, op.size - before.depth
    if op.how in ("identity", "random"):
        kept = op.how == "identity" and not _writes(path)
        source = (*range(n), *([n - 1 if kept else FRESH] * extra))
        grad = (*([1.0] * n), *([0.0] * extra))
    else:
        source, grad = _copied(op.how, n, op.size), (1.0,) * op.size
    seen: set[int] = set()
    new = tuple(i < 0 or i in seen or bool(seen.add(i)) for i in source)
    move = AxisMove(source, (1.0,) * op.size, grad, (0,) * op.size, new)
    return Move(path, ((0, move),), zero=_writes(path))


def _copied(how: str, n: int, size: int) -> tuple[int, ...]:
    """Which old layer each new one copies."""
    if how == "stack":
        return tuple(range(n)) * (size // n)
    if how == "interleave":
        return tuple(i for i in range(n) for _ in range(size // n))
    middle = n // 2
    return (*range(middle), *([middle] * (size - n)), *range(middle, n))


def _writes(path: Path) -> bool:
    """Whether a leaf writes to the residual stream."""
    return path[-2] in ("output", "down")


# heads and MLP units


def _heads(
    path: Path, axes: Axes, before: ModelConfig, after: ModelConfig, op: Op
) -> Move:
    if op.size < before.heads:
        return _pruned_heads(path, axes, before, op)
    query = _grown_heads(before, after)
    names_of = {"head": query}
    if after.kv_heads > before.kv_heads:
        names_of["kv_head"] = query
    return _units(path, axes, names_of, op.how, "output")


def _grown_heads(before: ModelConfig, after: ModelConfig) -> tuple[int, ...]:
    """Old index of every head: new ones last in their group of shared keys."""
    if before.heads == before.kv_heads:
        return (*range(before.heads), *([FRESH] * (after.heads - before.heads)))
    old, new = before.heads // before.kv_heads, after.heads // before.kv_heads
    rows = (
        (*range(g * old, (g + 1) * old), *([FRESH] * (new - old)))
        for g in range(before.kv_heads)
    )
    return tuple(i for row in rows for i in row)


def _pruned_heads(path: Path, axes: Axes, before: ModelConfig, op: Op) -> Move:
    group = before.heads // before.kv_heads
    found = []
    for i, axis in enumerate(axes):
        if axis == "head":
            found.append((i, AxisMove(op.keep)))
        elif axis == "kv_head":
            groups = tuple(tuple(h // group for h in row[::group]) for row in op.keep)
            found.append((i, AxisMove(groups)))
    return Move(path, tuple(found))


def _hidden(
    path: Path, axes: Axes, before: ModelConfig, after: ModelConfig, op: Op
) -> Move:
    if "hidden" in axes and op.size < before.hidden:
        return Move(path, ((axes.index("hidden"), AxisMove(op.keep)),))
    extra = op.size - before.hidden
    source = (*range(before.hidden), *([FRESH] * extra))
    return _units(path, axes, {"hidden": source}, op.how, "down")


def _units(
    path: Path,
    axes: Axes,
    sources: dict[str, tuple[int, ...]],
    how: str,
    output: str,
) -> Move:
    """New units, whose output side is the leaf `output`."""
    found = []
    writes = path[-2] == output
    for i, axis in enumerate(axes):
        if axis in sources:
            source = sources[axis]
            move = _split(source, writes) if how == "split" else _fresh(source)
            found.append((i, move))
    return Move(path, tuple(found), zero=writes)


def _fresh(source: tuple[int, ...]) -> AxisMove:
    known = [i >= 0 for i in source]
    return AxisMove(
        source,
        (1.0,) * len(source),
        tuple(map(float, known)),
        (0,) * len(source),
        tuple(not k for k in known),
    )


def _split(source: tuple[int, ...], writes: bool) -> AxisMove:
    """The first units that are there give one half each to the new ones.

    A new unit that follows others of its group takes from that group: the unit as many
    places before it as its group has new units, modulo the old ones.
    """
    found = list(source)
    for place, i in enumerate(source):
        if i == FRESH:
            start = place
            while source[start - 1] == FRESH and start > 0:
                start -= 1
            old = start
            while old > 0 and source[old - 1] != FRESH:
                old -= 1
            found[place] = source[old + (place - start) % (start - old)]
    halved = [found.count(i) == 2 for i in found]
    seen: set[int] = set()
    second = [i in seen or bool(seen.add(i)) for i in found]
    scale = tuple(0.5 if h and writes else 1.0 for h in halved)
    grad = tuple(0.5 if h and not writes else 1.0 for h in halved)
    sign = tuple(
        0 if not (h and writes) else -1 if s else 1
        for h, s in zip(halved, second, strict=True)
    )
    return AxisMove(tuple(found), scale, grad, sign, tuple(second))


# width of the residual stream


def _width(
    path: Path, axes: Axes, before: ModelConfig, after: ModelConfig, op: Op
) -> Move:
    """The stream becomes copies of itself."""
    if "width" not in axes:
        return Move(path)
    times, n = op.size // before.width, before.width
    reads = path[-2] in ("query", "key", "value", "up", "gate", "router")
    outputs = (("head", "w"), ("blend", "w"))
    halved = path[-2:] in outputs or (before.tied and "final_norm" in path)
    scale = 1 / times if reads or halved else 1.0
    signs = [0] * times
    if reads:
        pairs = times // 2
        signs = [s * pair for pair in range(1, pairs + 1) for s in (1, -1)]
        signs += [0] * (times - 2 * pairs)
    move = AxisMove(
        tuple(range(n)) * times,
        (scale,) * (n * times),
        (1 / (times * scale),) * (n * times),
        tuple(s for s in signs for _ in range(n)),
        tuple(k > 0 for k in range(times) for _ in range(n)),
    )
    return Move(path, ((axes.index("width"), move),))


# experts and tables


def _into_experts(path: Path, axes: Axes, old: set[Path], after: ModelConfig) -> Move:
    if path in old:
        return Move(path)
    origin = tuple("mlp" if name == "experts" else name for name in path)
    if origin not in old:
        return Move(None)
    e, place = after.experts, axes.index("expert")
    move = AxisMove(
        (0,) * e, (1.0,) * e, (1 / e,) * e, (0,) * e, tuple(k > 0 for k in range(e))
    )
    return Move(origin, ((place, move),), insert=place)


def _rows(
    path: Path, axes: Axes, before: ModelConfig, after: ModelConfig, op: Op
) -> Move:
    if "bucket" not in axes:
        return Move(path)
    times, n = op.size // before.memory_rows, before.memory_rows
    move = AxisMove(
        tuple(range(n)) * times,
        (1.0,) * op.size,
        (1 / times,) * op.size,
        (0,) * op.size,
        (False,) * op.size,
    )
    return Move(path, ((axes.index("bucket"), move),))
