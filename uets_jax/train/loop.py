"""The loop: a run is a fold over phases, each with constant shapes and one executable.

Per step: take a batch, dispatch the step, read the metrics of the step before. At fixed
steps: validate, save. A signal saves and stops.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from uets_jax.build import with_length
from uets_jax.config import ExperimentConfig, window_length
from uets_jax.curriculum.length import parse
from uets_jax.curriculum.length import phases as length_phases
from uets_jax.data.windows import chain_ids, stream
from uets_jax.errors import StoppedError, UserError
from uets_jax.measure.ledger import Ledger
from uets_jax.train.executable import Executable, executable
from uets_jax.train.files import held
from uets_jax.train.mesh import put_batch
from uets_jax.train.monitor import BadStepError, abort, log, read, validate
from uets_jax.train.phase import Stopwatch, close, profiled
from uets_jax.train.rollback import roll_back
from uets_jax.train.run import Pending, Run, save
from uets_jax.train.sameness import check_allow
from uets_jax.train.session import open_session
from uets_jax.train.start import already_finished, begin, tell
from uets_jax.train.summary import finish
from uets_jax.types import Batch, TrainState


class Result(NamedTuple):
    """A finished run: its resolved config, last state and summary."""

    config: ExperimentConfig
    state: TrainState
    summary: dict[str, Any]


class Phase(NamedTuple):
    """A stretch of steps with constant shapes, up to step `end`.

    length: tokens per row that is trained on; windows are cut to it.
    """

    config: ExperimentConfig
    end: int
    length: int


def train(
    config: ExperimentConfig,
    out: Path | str,
    resume: bool = False,
    overrides: Mapping[str, Any] | None = None,
    allow: Sequence[str] = (),
    profile: int = 0,
) -> Result:
    """Trains, and leaves config, metrics, checkpoints, summary and report in `out`.

    Args:
      config: the run; with `resume`, the one stored in `out/config.json`.
      out: the run's folder; without `resume` it must not hold a run.
      resume: go on from the newest intact checkpoint, bit-identical to a run that was
        never stopped; where there is none, start at step 0 and say so.
      overrides: own parts of the program, see `build`; a resume needs the same.
      allow: fields or rooms of the config in which a resume may differ, or
        "overrides"; each change is recorded as an event.
      profile: steps of which a trace is written to `out/profile`, for TensorBoard and
        Perfetto.

    Raises:
      UserError: for bad input or configuration, and if a checkpoint can't be written.
      NonFiniteLossError: for a bad step, where `train.on_bad_step` knows no better.
      StoppedError: after a signal, once the state is saved.
    """
    out, ledger = Path(out).absolute(), Ledger()
    check_allow(allow)
    if not resume and (out / "config.json").exists():
        raise UserError(f"{out}: holds a run; use --resume {out} or another --out")
    session = open_session(config, overrides)
    with held(out):
        run = begin(session, out, resume, ledger, sorted(overrides or {}), allow)
        if resume and (summary := already_finished(run)):
            return Result(session.config, run.state, summary)
        run.profile = profile
        return _train(run)


def _train(run: Run) -> Result:
    """The run from where it is to its end."""
    with run.open():
        tell(run)
        for phase in phases(run.session.config):
            _run_phase(run, phase)
        if run.saved != run.at.step:
            save(run)
        run.saver.wait()
        summary = finish(run)
    return Result(run.session.config, run.state, summary)


def phases(config: ExperimentConfig) -> tuple[Phase, ...]:
    """The run's stretches of constant shapes: one for each length of its rows."""
    steps, full = config.train.steps, window_length(config)
    parts = length_phases(steps, parse(config.curriculum.lengths, full), full)
    return tuple(Phase(config, end, length) for end, length in parts)


def _run_phase(run: Run, phase: Phase) -> None:
    """Steps up to the end of the phase, through rollbacks."""
    if run.at.step >= phase.end:
        return
    session = run.session
    run.ledger.switch("compile")
    run.watchdog.beat("compiling")
    program = with_length(session.program, phase.length, window_length(phase.config))
    step = executable(program, session.mesh, phase.config, session.assets)
    run.bytes = step.bytes
    watch = Stopwatch(run)
    while run.at.step < phase.end:
        try:
            _steps(run, phase, step, watch)
        except BadStepError as bad:
            roll_back(run, bad, step.count)
    close(run, phase.config, step, watch)


def _steps(run: Run, phase: Phase, step: Executable, watch: Stopwatch) -> None:
    """Steps up to the end of the phase, or to the first bad one.

    Raises:
      BadStepError: if the run is to go back to its last checkpoint.
    """
    session, skipped = run.session, run.at.passed_over
    batches = stream(session.windows, run.at.step + skipped, phase.end + skipped)
    run.ledger.switch("data")
    with profiled(run, phase.end) as profile:
        for batch in batches:
            run.ledger.switch("train")
            pool = put_batch(batch, session.mesh)
            run.state, metrics = step.call(run.state, pool, session.assets)
            run.at.chain = chain_ids(run.at.chain, _consumed(run, batch))
            run.at.step += 1
            stop = run.ask(bool(run.interrupts.caught))
            before, run.pending = run.pending, Pending(run.at.step, metrics, stop)
            log(run, step.count, before)
            watch.lap(run)
            _at_fixed_steps(run, step)
            if _asked_to_stop(run) and run.at.step < phase.end:
                read(run, step.count)
                close(run, phase.config, step, watch)
                _stop(run)
            run.saver.check()
            run.watchdog.beat(f"training after step {run.at.step}")
            profile.step()
            run.ledger.switch("data")
    run.ledger.switch("train")
    read(run, step.count)


def _consumed(run: Run, batch: Batch) -> np.ndarray:
    """The ids of the step's rows; of several processes, each has but its share."""
    if jax.process_count() == 1:
        return np.asarray(batch.ids)
    return run.session.windows.order(run.at.step + run.at.passed_over)


def _at_fixed_steps(run: Run, step: Executable) -> None:
    """Validation, then a checkpoint, where the config asks for them."""
    train, last = (
        run.session.config.train,
        run.at.step == run.session.config.train.steps,
    )
    due = lambda every: last or (every and run.at.step % every == 0)
    if due(train.eval_every):
        read(run, step.count)
        validate(run)
    if due(train.checkpoint_every):
        read(run, step.count)
        _check_params(run)
        save(run)


def _check_params(run: Run) -> None:
    """Keeps an overflow in the last update out of the checkpoints.

    Raises:
      NonFiniteLossError: if a parameter is not finite; a guard lets none pass.
    """
    before = run.ledger.switch("checkpoint")
    if run.session.program.guard is None and not _all_finite(run.state.params):
        raise abort(run, f"a parameter is not finite after step {run.at.step}")
    run.ledger.switch(before)


@jax.jit
def _all_finite(params: Any) -> Any:
    return jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(params)]).all()


def _asked_to_stop(run: Run) -> bool:
    """Whether to stop now; several processes learn it with the metrics, together."""
    if jax.process_count() == 1 and run.interrupts.caught:
        run.stop = run.interrupts.caught
    return run.stop is not None


def _stop(run: Run) -> None:
    """Saves the current step and ends the run."""
    if run.saved != run.at.step:
        _check_params(run)
        save(run)
    run.saver.wait()
    run.event("stopped", str(run.stop))
    raise StoppedError(
        f"{run.out}: stopped by {run.stop} at step {run.at.step}, checkpoint saved; go "
        f"on with --resume {run.out}"
    )
