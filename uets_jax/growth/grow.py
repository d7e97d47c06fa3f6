"""Growth and pruning of a whole train state: `(config, state) -> (config, state)`."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from uets_jax.build import build, initial_state
from uets_jax.config import ExperimentConfig
from uets_jax.errors import UserError
from uets_jax.growth.operators import (
    Moments,
    move_params,
    move_state,
    new_entries,
    shapes_of,
)
from uets_jax.growth.plan import FRESH, Move, Moves, plan
from uets_jax.growth.stages import Op
from uets_jax.models.axes import names
from uets_jax.optim.rewarm import RewarmState
from uets_jax.types import TrainState

MODEL = ("init", "forward", "logits", "inspect")  # overrides that can't be grown


def grow(
    config: ExperimentConfig,
    state: TrainState,
    ops: Sequence[Op],
    overrides: Mapping[str, Any] | None = None,
    moments: Moments | None = None,
    first: int = 0,
) -> tuple[ExperimentConfig, TrainState]:
    """Applies ops one after the other to a state; pure, so it can be jitted.

    Step, key and hyper-parameters stay. Parameters, optimizer and components move as
    `growth.plan` says; the learning rate of fresh entries is warmed up from the state's
    step on, if the program has a `rewarm`.

    Args:
      config: of the state.
      state: before.
      ops: in order.
      overrides: own parts of the program, see `build`.
      moments: of the optimizer; `None`: as `config.growth.moments` says.
      first: number of the first op among all of this step, each of which draws its
        own fresh entries.

    Raises:
      UserError: for an op that can't be applied, or an own model.
    """
    return _grow(config, state, ops, overrides, moments, first)[:2]


def begun_anew(
    config: ExperimentConfig,
    ops: Sequence[Op],
    overrides: Mapping[str, Any] | None = None,
) -> tuple[str, ...]:
    """Leaves of optimizer and components that `grow` can't carry over; static."""
    found: list[str] = []

    def trace(state: TrainState) -> TrainState:
        _, grown, begun = _grow(config, state, ops, overrides, "carry")
        found.extend(begun)
        return grown

    program = build(config, overrides)
    jax.eval_shape(lambda: trace(initial_state(config, program)))
    return tuple(found)


def _grow(
    config: ExperimentConfig,
    state: TrainState,
    ops: Sequence[Op],
    overrides: Mapping[str, Any] | None,
    moments: Moments | None,
    first: int = 0,
) -> tuple[ExperimentConfig, TrainState, list[str]]:
    check_own(overrides)
    moments = moments or config.growth.moments
    begun: list[str] = []
    state = _settled(state)
    for number, op in enumerate(ops, first):
        config, state, names_of = _apply(config, state, op, number, overrides, moments)
        begun += names_of
    return config, state, begun


def check_own(overrides: Mapping[str, Any] | None) -> None:
    """Raises `UserError` where the model is the user's own: its axes are not known."""
    own = sorted(set(overrides or {}) & set(MODEL))
    if own:
        raise UserError(
            f"growth: the program's own {own[0]!r} can't be grown; train it with "
            "growth.method none"
        )


def _settled(state: TrainState) -> TrainState:
    """What was fresh at an earlier growth has had its time; at this step it goes on."""
    if "rewarm" not in state.parts:
        return state
    old = state.parts["rewarm"]
    now = (old.born == state.step).astype(jnp.float32)
    warm = RewarmState(state.step, jax.tree.map(lambda flag: now * flag, old.fresh))
    return state._replace(parts={**state.parts, "rewarm": warm})


def _apply(
    config: ExperimentConfig,
    state: TrainState,
    op: Op,
    number: int,
    overrides: Mapping[str, Any] | None,
    moments: Moments,
) -> tuple[ExperimentConfig, TrainState, list[str]]:
    after, moves = plan(config, op)
    program, before = build(after, overrides), config.model.depth
    root = jax.random.fold_in(state.key, state.step)
    key, noise = jax.random.split(jax.random.fold_in(root, 1000 + number))
    fresh = program.init(key)
    params = move_params(moves, state.params, fresh, noise)
    moved = {}
    begun: list[str] = []
    templates = {"opt": program.tx.init(params)}
    kept = {"opt": state.opt}
    for slot in state.parts:
        if slot != "rewarm":
            templates[slot] = getattr(program, slot).init(params)
            kept[slot] = state.parts[slot]
    shapes = shapes_of(moves, state.params, params)
    depths = (before, after.model.depth)
    for name, fresh_state in templates.items():
        if name == "opt" and moments == "reset":
            moved[name] = fresh_state
            continue
        found = move_state(moves, depths, kept[name], fresh_state, shapes, moments)
        moved[name] = found.state
        begun += [f"{name}/{leaf}" for leaf in found.begun]
    opt = moved.pop("opt")
    if "rewarm" in state.parts:
        moved["rewarm"] = _rewarmed(moves, state.parts["rewarm"], params)
    parts = {slot: moved[slot] for slot in state.parts}
    return after, state._replace(params=params, opt=opt, parts=parts), begun


def _rewarmed(moves: Moves, old: RewarmState, params: Any) -> RewarmState:
    """The vectors of fresh entries in the new shapes, those of this op among them."""
    had: dict[Any, Any] = {}
    for path, flag in jax.tree_util.tree_leaves_with_path(old.fresh):
        had.setdefault(names(path[:-1]), []).append(flag)

    def flags(path: Any, leaf: Any) -> tuple[Any, ...]:
        move = moves[names(path)]
        new = new_entries(move, leaf.shape)
        if move.old is None:
            return tuple(map(jnp.asarray, new))
        before = list(had.get(move.old, []))
        if move.insert is not None:
            before.insert(move.insert, jnp.zeros(1))
        return _along_axes(move, before, new)

    fresh = jax.tree_util.tree_map_with_path(flags, params)
    return RewarmState(old.born, fresh)


def _along_axes(
    move: Move, before: Sequence[Any], new: Sequence[np.ndarray]
) -> tuple[Any, ...]:
    """Old flags in their new places, or-ed with the new ones; of per-layer choices the
    new ones only.
    """
    moved = dict(enumerate(before))
    for axis, m in move.axes:
        source = np.asarray(m.source)
        if source.ndim > 1:
            moved[axis] = jnp.zeros(new[axis].shape)
            continue
        gathered = jnp.take(before[axis], np.maximum(source, 0))
        moved[axis] = jnp.where(source == FRESH, 1.0, gathered)
    return tuple(jnp.maximum(moved[i], flag) for i, flag in enumerate(new))
