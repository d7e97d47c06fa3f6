"""Stopping at a target: when the rate comes down, and where the run ends.

Until then the rate stays (schedule `wsd`). Every validation of the averaged weights is
a check (see `measure.converged`); once one says that a cool-down from here ends at the
target, the horizon of the schedule, which is traced, becomes the end of that cool-down.
Nothing but losses at fixed steps decides, so a resumed run, and every process of one,
decides the same.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from uets_jax.build import hypers
from uets_jax.config import ExperimentConfig, decay_share
from uets_jax.errors import UserError
from uets_jax.measure.converged import converged
from uets_jax.types import Hypers

if TYPE_CHECKING:
    from uets_jax.train.run import Position, Run


def check_schedule(
    config: ExperimentConfig, overrides: Mapping[str, Any] | None
) -> None:
    """Raises `UserError` for a target with a schedule of the user's own."""
    if config.train.target and "schedule" in (overrides or {}):
        raise UserError(
            "train.target: an own 'schedule' can't be told to cool down; leave it out"
        )


def latest_cooldown(config: ExperimentConfig) -> int:
    """The step after which the cool-down begins at the latest, to end at
    `train.steps`.
    """
    return max(1, int((1 - decay_share(config)) * config.train.steps + 1e-6))


def cooled(config: ExperimentConfig, step: int) -> int:
    """The step at which a cool-down that begins after `step` ends."""
    last = step + max(1, round(config.train.cooldown * step))
    return min(last, config.train.steps)


def steers(config: ExperimentConfig, at: "Position") -> bool:
    """Whether a validation now may begin the cool-down; it is charged as a probe."""
    early = at.step < latest_cooldown(config)
    return config.train.target > 0 and not at.end and early


def checks(config: ExperimentConfig, first: int, last: int) -> int:
    """Validations that steer after `first` up to `last`, if no check is passed."""
    every, until = config.train.eval_every, latest_cooldown(config) - 1
    if not (config.train.target and every):
        return 0
    return max(0, min(last, until) // every - first // every)


def next_check(run: "Run") -> int:
    """The first step after this one at which the end of the run may change."""
    config, step = run.origin, run.at.step
    if not config.train.target or run.at.end:
        return run.end
    every = config.train.eval_every
    return min((step // every + 1) * every, max(latest_cooldown(config), step + 1))


def placed_hypers(config: ExperimentConfig, at: "Position") -> Hypers:
    """The traced values of a config, with the horizon of a cool-down that has begun."""
    values = hypers(config)
    steps = jnp.asarray(at.end, jnp.float32) if at.end else values.steps
    return values._replace(steps=steps)


def cool_if_due(run: "Run", checked: bool) -> None:
    """Begins the cool-down if this validation says so, or if it is high time.

    Args:
      checked: whether this step has been validated.
    """
    config, at = run.origin, run.at
    if not config.train.target or at.end:
        return
    if at.step >= latest_cooldown(config):
        _begin(run, config.train.steps, "to end at train.steps")
    elif checked:
        _check(run)


def _check(run: "Run") -> None:
    train, at = run.origin.train, run.at
    at.checks.append([at.step, at.last_valid["bits_per_byte"]])
    found = converged(at.checks, train.target, train.cooldown)
    if math.isfinite(found.loss):
        told = {"predicted_bits_per_byte": found.loss, "predicted_error": found.error}
        run.record({"step": at.step, **told, **run.spent()})
    if found.reached:
        why = f"{found.loss:.4f} +- {found.error:.4f} bits per byte then"
        _begin(run, cooled(run.origin, at.step), why)


def _begin(run: "Run", end: int, why: str) -> None:
    """From here the rate falls to its floor at step `end`, the last one."""
    at = run.at
    at.cooldown, at.end = at.step, end
    values = run.session.place_hypers(placed_hypers(run.origin, at))
    run.state = run.state._replace(hypers=values)
    detail = f"cool-down to step {end}: {why}, target {run.origin.train.target:g}"
    run.event("cooldown", detail, end=end)
    run.progress.note(f"step {at.step}: {detail}")
    run.progress.ends_at(end)


def outcome(run: "Run") -> dict[str, Any]:
    """What the summary says of the target; {} without one.

    target_reached: whether the last validation is at the target or below.
    cooldown_began: step.
    flops_to_target: all FLOPs but those of evaluation that does not steer; None where
      the target was not reached.
    """
    target, at = run.origin.train.target, run.at
    if not target:
        return {}
    reached = at.last_valid["bits_per_byte"] <= target
    return {
        "target": target,
        "target_reached": reached,
        "cooldown_began": at.cooldown,
        "flops_to_target": run.ledger.training_flops() if reached else None,
    }
