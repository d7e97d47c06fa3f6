"""Pruning in three pieces: how much by when, how many per layer, and which ones.

After JaxPruner (Lee et al. 2023), which keeps them apart, too. What goes is cut out of
the arrays, so it costs nothing any more; a mask would save no FLOPs. Every layer keeps
as many as the others, for the scanned stack must stay rectangular. The scores are of
one look: the greedy variant, which scores again after each removal, is not here.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from uets_jax.errors import UserError, nearest
from uets_jax.types import Params

Scores = Float[Array, "layers n"] | Float[np.ndarray, "layers n"]
LayerScores = Float[Array, " layers"] | Float[np.ndarray, " layers"]
Kept = tuple[tuple[int, ...], ...]

# share of `final` that is pruned when a fraction t of the time has passed
_CURVES: dict[str, Callable[[float], float]] = {
    "once": lambda t: 1.0,
    "linear": lambda t: t,
    "cubic": lambda t: 1.0 - (1.0 - t) ** 3,
}


class Heads(NamedTuple):
    """Which heads each layer keeps, rising: of the queries (and of the output matrix),
    and of the keys and values."""

    query: Kept
    key: Kept


def schedule(
    kind: str, start: float, end: float, final: float
) -> Callable[[float], float]:
    """`progress -> share pruned by then`; 0 before `start`, `final` from `end` on.

    once: all at `start`. linear: s = final t with t = (progress - start) / (end -
    start). cubic: s = final (1 - (1 - t)^3), fast while much is redundant (Zhu & Gupta
    2017).

    Args:
      start, end: shares of the run.
      final: share of the units that is gone in the end.

    Raises:
      UserError: for an unknown kind or numbers out of order.
    """
    if kind not in _CURVES:
        raise UserError(f"kind: {kind!r}: {nearest(kind, _CURVES)}")
    if not 0 <= start <= end <= 1:
        raise UserError(f"start, end: {start}, {end}: need 0 <= start <= end <= 1")
    if not 0 <= final < 1:
        raise UserError(f"final: {final}: need a share in [0, 1)")

    def share(progress: float) -> float:
        if progress < start:
            return 0.0
        t = min((progress - start) / (end - start), 1.0) if end > start else 1.0
        return final * _CURVES[kind](t)

    return share


def counts(share: float, units: int, multiple: int = 1) -> int:
    """How many of its `units` each layer keeps when `share` of them is pruned.

    Uniform, the only distribution under which the layers stay one stack. Rounded up to
    a multiple, so never more is pruned than was asked, and at least one multiple stays.

    Args:
      multiple: heads per group of keys; or what the hardware likes, for MLP units.

    Raises:
      UserError: for a share outside [0, 1) or units that are no such multiple.
    """
    if not 0 <= share < 1:
        raise UserError(f"share: {share}: need a share in [0, 1)")
    if multiple < 1 or units < 1 or units % multiple:
        raise UserError(f"units: {units}: need a positive multiple of {multiple}")
    exact = (1 - share) * units / multiple
    return multiple * max(1, math.ceil(round(exact, 9)))


def gradual(
    field: str,
    units: int,
    final: int,
    start: float,
    end: float,
    events: int = 4,
    kind: str = "cubic",
    multiple: int = 1,
) -> str:
    """A plan (`growth.plan`) that prunes `units` to `final` in several steps.

    How much by when is `schedule`'s, how many per layer `counts`'s; which ones stay is
    decided at each step, by `growth.prune`.

    Args:
      field: heads, hidden or depth.
      start, end: shares of the run at which the first and the last are taken away.
      events: steps; those that would take nothing away are left out.
      multiple: all numbers are multiples of it but `final`, which is taken as it is.

    Raises:
      UserError: for numbers out of order, or an unknown kind.
    """
    if field not in ("heads", "hidden", "depth"):
        known = ("heads", "hidden", "depth")
        raise UserError(f"field: {field!r}: {nearest(field, known)}")
    if not 0 < final < units:
        raise UserError(f"final: {final}: need 1 to {units - 1} of the {units}")
    if not 0 < start <= end < 1:
        raise UserError(f"start, end: {start}, {end}: need 0 < start <= end < 1")
    if events < 1 or (events > 1 and start == end):
        raise UserError(f"events: {events} between {start} and {end}: need room")
    share = schedule(kind, start, end, 1 - final / units)
    parts, left = [], units
    for number in range(1, events + 1):
        # the first event has pruned already what the schedule asks for by then
        when = start + (end - start) * (number - 1) / max(events - 1, 1)
        wanted = share(start + (end - start) * number / events)
        size = final if number == events else counts(wanted, units, multiple)
        if final <= size < left:
            parts.append(f"{field}={size}:{when:.4g}")
            left = size
    return ",".join(parts)


def keep_heads(scores: Scores, n: int, groups: int) -> Heads:
    """The n best heads of each layer; of equal ones the first.

    With fewer heads of keys than of queries, H / groups neighbouring query heads read
    the same keys, and such a group stays or goes as one, by its summed score.

    Args:
      scores: importance [layers, H].
      n: query heads kept, a multiple of H / groups.
      groups: heads of keys and values (`ModelConfig.kv_heads`); H if each has its own.

    Raises:
      UserError: if the numbers do not divide, or a score is not finite.
    """
    values = _checked("scores", scores)
    layers, heads = values.shape
    if groups < 1 or heads % groups:
        raise UserError(f"groups: {groups}: need a divisor of the {heads} heads")
    size = heads // groups
    if not size <= n <= heads or n % size:
        raise UserError(
            f"n: {n} heads: need a multiple of {size} (heads per group) up to {heads}"
        )
    kept = _best(values.reshape(layers, groups, size).sum(-1), n // size)
    members = lambda group: range(group * size, (group + 1) * size)
    query = tuple(tuple(h for g in row for h in members(g)) for row in kept)
    return Heads(query, kept)


def keep_hidden(scores: Scores, n: int) -> Kept:
    """The n best MLP units of each layer, rising; of equal ones the first.

    Raises:
      UserError: if n is not in [1, F], or a score is not finite.
    """
    values = _checked("scores", scores)
    if not 1 <= n <= values.shape[1]:
        raise UserError(f"n: {n} units: need 1 to {values.shape[1]}")
    return _best(values, n)


def keep_layers(scores: LayerScores, n: int) -> tuple[int, ...]:
    """The n layers with the greatest scores, rising; layer 0 is always one of them.

    The value residual of all other layers reads the first layer's values, so it stays
    whatever its score is.

    Args:
      scores: measured loss increase when a layer is skipped (`signals.removal`), or
        another importance; the least goes first.

    Raises:
      UserError: if n is not in [1, layers], or a score is not finite.
    """
    values = _checked("scores", scores)
    if not 1 <= n <= len(values):
        raise UserError(f"n: {n} layers: need 1 to {len(values)}")
    if n == 1:
        return (0,)
    return (0, *(1 + i for i in _best(values[None, 1:], n - 1)[0]))


def random_scores(key: Key[Array, ""], layers: int, units: int) -> Scores:
    """Scores under which any choice is as likely as another: the blind arm."""
    return jax.random.uniform(key, (layers, units))


def magnitude(
    params: Params,
) -> tuple[Float[Array, "layers h"], Float[Array, "layers f"]]:
    """(heads [layers, H], hidden [layers, F]): l2 norm of what each writes with.

    |W_output,h|_F over [K, D] and |W_down,j| over [D]: the arm that looks at weights
    only, and needs no data.

    Raises:
      UserError: if the parameters are not those of the stacked transformer.
    """
    output = _weight(params, "attention", "output", rank=4)
    down = _weight(params, "mlp", "down", rank=3)
    return jnp.sqrt(jnp.square(output).sum((2, 3))), jnp.linalg.norm(down, axis=-1)


def _weight(params: Any, *names: str, rank: int) -> Any:
    """The stacked matrix at blocks/.../w."""
    path = ("blocks", *names, "w")
    found = params
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    if getattr(found, "ndim", None) != rank:
        raise UserError(
            f"params: {'/'.join(path)} is no array of rank {rank}: prune by importance"
        )
    return found


def _checked(name: str, scores: Any) -> np.ndarray:
    """On the host, all finite."""
    values = np.asarray(scores, np.float64)
    if not np.isfinite(values).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise UserError(f"{name}: {values[place]} at {place}: look again, or at more")
    return values


def _best(scores: np.ndarray, n: int) -> Kept:
    """Columns of the n greatest entries of each row, rising; ties: the first."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :n]
    return tuple(tuple(int(i) for i in sorted(row)) for row in order)
