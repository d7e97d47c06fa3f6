"""The loop: a run is a fold over phases, each with constant shapes and one executable.

Per step: take a batch, dispatch the step, read the metrics of the step before. At fixed
steps: validate, save. A signal saves and stops; a non-finite loss stops.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from uets_jax.config import ExperimentConfig, window_length
from uets_jax.data.windows import chain_ids, stream
from uets_jax.errors import NonFiniteLossError, StoppedError, UserError
from uets_jax.measure.flops import forward_flops, step_flops
from uets_jax.measure.ledger import Ledger
from uets_jax.train.interrupts import Interrupts
from uets_jax.train.mesh import compile_step, put_batch
from uets_jax.train.run import Pending, Run, begin, describe, save
from uets_jax.train.session import open_session
from uets_jax.train.summary import finish
from uets_jax.train.validation import validation
from uets_jax.types import Batch, TrainState


class Result(NamedTuple):
    """A finished run: its resolved config, last state and summary."""

    config: ExperimentConfig
    state: TrainState
    summary: dict[str, Any]


class Phase(NamedTuple):
    """A stretch of steps with constant shapes, up to step `end`."""

    config: ExperimentConfig
    end: int


def train(
    config: ExperimentConfig,
    out: Path | str,
    resume: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> Result:
    """Trains, and leaves config, metrics, checkpoints, summary and report in `out`.

    Args:
      config: the run; with `resume`, the one stored in `out/config.json`.
      out: the run's folder; without `resume` it must not hold a run.
      resume: go on from the newest intact checkpoint, bit-identical to a run that was
        never stopped; where there is none, start at step 0 and say so.
      overrides: own parts of the program, see `build`; a resume needs the same.

    Raises:
      UserError: for bad input or configuration.
      NonFiniteLossError: if the loss stops being finite.
      StoppedError: after a signal, once the state is saved.
    """
    out, ledger = Path(out).absolute(), Ledger()
    if not resume and (out / "config.json").exists():
        raise UserError(f"{out}: holds a run; use --resume {out} or another --out")
    session = open_session(config, overrides)
    run = begin(session, out, resume, ledger, sorted(overrides or {}))
    with run.metrics, run.progress, Interrupts() as interrupts:
        for phase in phases(session.config):
            _run_phase(run, phase, interrupts)
        if run.saved != run.step:
            save(run)
    summary = finish(run)
    return Result(session.config, run.state, summary)


def phases(config: ExperimentConfig) -> tuple[Phase, ...]:
    """The run's stretches of constant shapes: one, until something grows."""
    return (Phase(config, config.train.steps),)


def _run_phase(run: Run, phase: Phase, interrupts: Interrupts) -> None:
    """Steps up to the end of the phase."""
    session, config = run.session, phase.config
    step_fn = compile_step(session.program, session.mesh)
    batches = stream(session.windows, run.step, phase.end)
    cost = step_flops(config)
    run.ledger.switch("data")
    category = "compile"
    for batch in batches:
        run.ledger.switch(category)
        pool = put_batch(batch, session.mesh)
        run.state, metrics = step_fn(run.state, pool, None)
        run.ledger.switch("train")
        run.chain = chain_ids(run.chain, _consumed(run, batch))
        run.step += 1
        run.ledger.charge(cost)
        _read(run)
        run.pending = Pending(run.step, run.ledger.training_flops(), metrics)
        category = "train"
        _at_fixed_steps(run)
        if interrupts.caught and run.step < phase.end:
            _stop(run, interrupts.caught)
        run.ledger.switch("data")
    run.ledger.switch("train")
    _read(run)


def _consumed(run: Run, batch: Batch) -> np.ndarray:
    """The ids of the step's rows; of several processes, each has but its share."""
    if jax.process_count() == 1:
        return np.asarray(batch.ids)
    return run.session.windows.order(run.step)


def _at_fixed_steps(run: Run) -> None:
    """Validation, then a checkpoint, where the config asks for them."""
    train, last = run.session.config.train, run.step == run.session.config.train.steps
    due = lambda every: last or (every and run.step % every == 0)
    if due(train.eval_every):
        _read(run)
        _validate(run)
    if due(train.checkpoint_every):
        _read(run)
        save(run)


def _read(run: Run) -> None:
    """Fetches and logs the metrics of the last step dispatched before this one."""
    if run.pending is None:
        return
    step, flops, metrics = run.pending
    run.pending = None
    values = {k: float(v) for k, v in jax.device_get(dict(metrics)).items()}
    describe(run)
    run.ledger.charge({}, tokens=int(values.pop("targets")))
    seconds = round(run.ledger.training_seconds(), 4)
    counts = {"tokens": run.ledger.tokens, "flops": flops, "seconds": seconds}
    run.metrics.write({"step": step, **values, **counts})
    run.progress.update(step, values["loss"], run.ledger.tokens)
    run.last_loss = values["loss"]
    for name in ("loss", "grad_norm"):
        _check_finite(run, name, values[name], step)


def _check_finite(run: Run, name: str, value: float, step: int) -> None:
    """Raises `NonFiniteLossError`, with everything measured on disk."""
    if math.isfinite(value):
        return
    run.metrics.flush()
    raise NonFiniteLossError(
        f"{run.out}: {name} is {value} at step {step}; lower --optim.learning-rate in "
        "a new --out; metrics.jsonl has the steps before"
    )


def _validate(run: Run) -> None:
    """Loss on held-out text, into the metrics."""
    session, before = run.session, run.ledger.switch("eval")
    limit = session.config.train.eval_tokens
    found = validation(session, run.state.params, "valid", limit)
    per_token = forward_flops(session.config.model, window_length(session.config))
    run.ledger.charge({"evaluation": per_token * int(found["valid_tokens"])})
    run.last_valid = found
    counts = {
        "tokens": run.ledger.tokens,
        "flops": run.ledger.training_flops(),
        "seconds": round(run.ledger.training_seconds(), 4),
    }
    run.metrics.write({"step": run.step, **found, **counts})
    _check_finite(run, "valid_loss", found["valid_loss"], run.step)
    run.progress.note(
        f"step {run.step}: validation loss {found['valid_loss']:.4f}, "
        f"{found['bits_per_byte']:.4f} bits per byte"
    )
    run.ledger.switch(before)


def _stop(run: Run, name: str) -> None:
    """Saves the current step and ends the run."""
    _read(run)
    if run.saved != run.step:
        save(run)
    run.metrics.write({"step": run.step, "event": "stopped", "detail": name})
    raise StoppedError(
        f"{run.out}: stopped by {name} at step {run.step}, checkpoint saved; go on "
        f"with --resume {run.out}"
    )
