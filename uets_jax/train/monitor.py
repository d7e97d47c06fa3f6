"""What the host learns while a run goes on: metrics, bad steps, validation.

The metrics of a step are read after the next one is dispatched, so that the devices
never wait for the host.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from uets_jax.errors import NonFiniteLossError
from uets_jax.measure import slope
from uets_jax.measure.branches import Count
from uets_jax.step import evaluated
from uets_jax.train.executable import evaluation_cost
from uets_jax.train.run import Pending, Position, Run, describe
from uets_jax.train.stopping import steers
from uets_jax.train.validation import validation

TOLD = 3  # left-out updates that get a line on the terminal, each


class BadStepError(Exception):
    """A step after which the run goes back to a checkpoint."""

    def __init__(self, step: int, why: str) -> None:
        super().__init__(f"{why} at step {step}")
        self.step = step


def read(run: Run, count: Count) -> None:
    """Fetches and logs the metrics of the last step dispatched; see `log`."""
    pending, run.pending = run.pending, None
    log(run, count, pending)


def log(run: Run, count: Count, pending: Pending | None) -> None:
    """Fetches and logs the metrics of a step, charges it, looks whether it was bad.

    Raises:
      NonFiniteLossError: for a bad step under the policy `abort`, or one too many.
      BadStepError: for one under the policy `rollback`.
    """
    if pending is None:
        return
    describe(run)
    values = charge(run, count, pending)
    run.record(run.compared({"step": pending.step, **values, **run.spent()}))
    ahead = run.monitor.line() if run.monitor is not None else ""
    run.progress.update(pending.step, values["loss"], run.ledger.tokens, ahead)
    if pending.stop and run.stop is None:
        run.stop = run.interrupts.caught or "a signal to another process"
    why = bad(values)
    growth = run.origin.growth
    if not why and (growth.look_every or growth.method not in ("none", "fixed")):
        follow(run.at, float(run.ledger.training_flops()), values["loss"])
    if why:
        _act(run, pending.step, why)
    else:
        run.at.streak, run.at.last_loss = 0, values["loss"]


def charge(run: Run, count: Count, pending: Pending) -> dict[str, float]:
    """Adds a step to the ledger; returns its metrics, less the number of targets."""
    fetched = jax.device_get(dict(pending.metrics))
    values = {name: float(value) for name, value in fetched.items()}
    taken = {k.removeprefix("taken/"): int(v) for k, v in values.items() if "/" in k}
    run.ledger.charge(count.total(taken), tokens=int(values.pop("targets")))
    return values


def follow(at: Position, flops: float, loss: float) -> None:
    """Adds a good step to the estimate of the loss's slope."""
    state = slope_state(at.slope)
    at.slope = [float(x) for x in jax.device_get(_update_slope(state, flops, loss))]


def slope_state(values: Sequence[float]) -> slope.SlopeState:
    """The estimate from the numbers that a record holds; from none, a new one."""
    like = slope.init()
    if not values:
        return like
    return slope.SlopeState(
        *(np.asarray(v, x.dtype) for v, x in zip(values, like, strict=True))
    )


_update_slope = jax.jit(slope.update)


def bad(values: dict[str, float]) -> str:
    """Why a step is bad; empty for a good one."""
    for name in ("loss", "grad_norm", "update_norm"):
        if not math.isfinite(values.get(name, 0.0)):
            return f"{name} is {values[name]}"
    return f"loss {values['loss']:.4g} is a spike" if values.get("skipped") else ""


def _act(run: Run, step: int, why: str) -> None:
    """What `train.on_bad_step` says."""
    train = run.session.config.train
    if train.on_bad_step == "abort":
        raise abort(run, f"{why} at step {step}")
    if train.on_bad_step == "rollback":
        raise BadStepError(step, why)
    run.at.streak += 1
    run.at.counts["skipped_steps"] += 1
    run.event("skip", f"step {step}: {why}; its update was left out")
    if run.at.counts["skipped_steps"] <= TOLD:
        run.progress.note(f"step {step}: {why}; its update was left out")
    if run.at.streak >= train.bad_steps:
        many = f"bad step {run.at.streak} in a row"
        raise abort(run, f"{why} at step {step}, {many}")


def abort(run: Run, what: str) -> NonFiniteLossError:
    """The error that ends the run, with everything measured on disk."""
    run.metrics.flush()
    return NonFiniteLossError(
        f"{run.out}: {what}; lower --optim.learning-rate in a new --out; metrics.jsonl "
        "has the steps before"
    )


def validate(run: Run) -> dict[str, Any]:
    """Loss on held-out text, into the metrics; charged as a probe where it steers.

    Raises:
      NonFiniteLossError: if it is not finite.
    """
    session, before = run.session, run.ledger.switch("eval")
    config = session.config
    run.watchdog.beat(f"validating step {run.at.step}")
    params = evaluated(session.program, run.state)
    found = validation(session, params, "valid", config.train.eval_tokens)
    batches = found.pop("valid_batches")
    run.look_at_memory()
    cost = evaluation_cost(session.program, session.mesh, config)
    name = "probe" if steers(run.origin, run.at) else "evaluation"
    run.ledger.charge({name: cost * int(batches)})
    run.at.last_valid = found
    run.record(run.compared({"step": run.at.step, **found, **run.spent()}))
    if not math.isfinite(found["valid_loss"]):
        raise abort(run, f"valid_loss is {found['valid_loss']} at step {run.at.step}")
    run.progress.note(
        f"step {run.at.step}: validation loss {found['valid_loss']:.4f}, "
        f"{found['bits_per_byte']:.4f} bits per byte"
    )
    run.ledger.switch(before)
    return found
