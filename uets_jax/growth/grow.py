"""Growth and pruning of a whole train state: `(config, state) -> (config, state)`."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from uets_jax.build import build, initial_state
from uets_jax.config import ExperimentConfig
from uets_jax.errors import UserError
from uets_jax.growth.copies import weight_copies
from uets_jax.growth.operators import (
    Moments,
    by_path,
    move_params,
    move_state,
    new_entries,
    shapes_of,
)
from uets_jax.growth.plan import FRESH, Move, Moves, is_exact, plan
from uets_jax.growth.stages import Op
from uets_jax.models.axes import names
from uets_jax.optim.rewarm import OLD, RewarmState
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
    step on, if the program has a `rewarm`; its `guard` learns anew what a usual loss is
    where the op changes the function.

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


def _apply(
    config: ExperimentConfig,
    state: TrainState,
    op: Op,
    number: int,
    overrides: Mapping[str, Any] | None,
    moments: Moments,
) -> tuple[ExperimentConfig, TrainState, list[str]]:
    after, moves = plan(config, op)
    if op.field == "frozen":
        return after, state, []
    program, before = build(after, overrides), config.model.depth
    root = jax.random.fold_in(state.key, state.step)
    key, noise = jax.random.split(jax.random.fold_in(root, 1000 + number))
    fresh = program.init(key)
    params = move_params(moves, state.params, fresh, noise)
    moved = {}
    begun: list[str] = []
    inits = {"opt": program.tx.init}
    kept = {"opt": state.opt}
    for slot in state.parts:
        if slot != "rewarm":
            inits[slot] = getattr(program, slot).init
            kept[slot] = state.parts[slot]
    shapes, weights = shapes_of(moves, state.params, params), by_path(state.params)
    depths = (before, after.model.depth)
    templates = {name: init(params) for name, init in inits.items()}
    for name, fresh_state in templates.items():
        if name == "opt" and moments == "reset":
            moved[name] = fresh_state
            continue
        copies = weight_copies(inits[name], params)
        found = move_state(
            moves, depths, kept[name], fresh_state, shapes, moments, copies, weights
        )
        moved[name] = found.state
        begun += [f"{name}/{leaf}" for leaf in found.begun]
    if "guard" in moved and not is_exact(op, config.model):
        moved["guard"] = templates["guard"]
    opt = moved.pop("opt")
    if "rewarm" in state.parts:
        moved["rewarm"] = _rewarmed(moves, state.parts["rewarm"], params, state.step)
    parts = {slot: moved[slot] for slot in state.parts}
    return after, state._replace(params=params, opt=opt, parts=parts), begun


def _rewarmed(moves: Moves, old: RewarmState, params: Any, step: Any) -> RewarmState:
    """When the entries were born, in the new shapes; those of this op at `step`."""
    had: dict[Any, Any] = {}
    for path, steps in jax.tree_util.tree_leaves_with_path(old.born):
        had.setdefault(names(path[:-1]), []).append(steps)

    def born(path: Any, leaf: Any) -> tuple[Any, ...]:
        move = moves[names(path)]
        new = [jnp.where(flag > 0, step, OLD) for flag in new_entries(move, leaf.shape)]
        if move.old is None:
            return tuple(new)
        before = list(had.get(move.old, []))
        if move.insert is not None:
            before.insert(move.insert, jnp.full(1, OLD))
        return _along_axes(move, before, new, step)

    return RewarmState(jax.tree_util.tree_map_with_path(born, params))


def _along_axes(
    move: Move, before: Sequence[Any], new: Sequence[Any], step: Any
) -> tuple[Any, ...]:
    """Old steps in their new places, or the new ones where later; of per-layer choices
    the new ones only.
    """
    moved = dict(enumerate(before))
    for axis, m in move.axes:
        source = np.asarray(m.source)
        if source.ndim > 1:
            moved[axis] = jnp.full(new[axis].shape, OLD)
            continue
        gathered = jnp.take(before[axis], np.maximum(source, 0))
        moved[axis] = jnp.where(source == FRESH, step, gathered)
    return tuple(jnp.maximum(moved[i], steps) for i, steps in enumerate(new))
