"""The loop: a run is a fold over phases, each with constant shapes and one executable.

Per step: take a batch, dispatch the step, read the metrics of the step before. At fixed
steps: validate, save. A signal saves and stops.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from uets_jax.config import ExperimentConfig
from uets_jax.data.windows import chain_ids, stream
from uets_jax.errors import StoppedError, UserError
from uets_jax.measure.ledger import Ledger
from uets_jax.train.executable import Executable
from uets_jax.train.files import held
from uets_jax.train.growing import (
    compile_ahead,
    grow_if_due,
    next_decision,
    parts,
    stage_executable,
    take_a_look,
)
from uets_jax.train.mesh import put_batch
from uets_jax.train.monitor import BadStepError, abort, log, read, validate
from uets_jax.train.phase import Stopwatch, close, profiled
from uets_jax.train.processes import is_main
from uets_jax.train.rollback import roll_back
from uets_jax.train.run import Pending, Run, save
from uets_jax.train.sameness import check_allow
from uets_jax.train.session import Session, open_session
from uets_jax.train.start import already_finished, begin, tell
from uets_jax.train.stopping import cool_if_due, next_check
from uets_jax.train.summary import finish
from uets_jax.train.tuning import store, tune
from uets_jax.types import Batch, TrainState


class Result(NamedTuple):
    """A finished run: its resolved config, last state and summary."""

    config: ExperimentConfig
    state: TrainState
    summary: dict[str, Any]


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
        if config.train.tune and not resume:
            session = _tuned(session, out, ledger)
        run = begin(session, out, resume, ledger, sorted(overrides or {}), allow)
        if resume and (summary := already_finished(run)):
            return Result(run.session.config, run.state, summary)
        run.profile = profile
        return _train(run)


def _tuned(session: Session, out: Path, ledger: Ledger) -> Session:
    """The session with the settings that rehearsals have chosen; charged in `begin`."""
    ledger.switch("tuning")
    told = lambda line: print(line, file=sys.stderr) if is_main() else None
    found = tune(session.config, session.overrides, told)
    store(found, out)
    return open_session(found.config, session.overrides)


def _train(run: Run) -> Result:
    """The run from where it is to its end."""
    with run.open():
        tell(run)
        compile_ahead(run)
        while run.at.step < run.end:
            _run_phase(run)
        if run.saved != run.at.step:
            save(run)
        run.saver.wait()
        summary = finish(run)
    return Result(run.session.config, run.state, summary)


def _run_phase(run: Run) -> None:
    """A phase of constant shapes and one executable: until rows get longer, the model
    changes, or a rollback leads out of it.
    """
    session = run.session
    end, length = next(part for part in parts(session) if part[0] > run.at.step)
    run.ledger.switch("compile")
    run.watchdog.beat("compiling")
    step = stage_executable(session, length)
    run.bytes = step.bytes
    watch = Stopwatch(run)
    while run.at.step < min(end, run.end) and run.session is session:
        try:
            _steps(run, min(end, next_decision(run), next_check(run)), step, watch)
            grow_if_due(run)
        except BadStepError as bad:
            roll_back(run, bad, step.count)
    close(run, session.config, step, watch)


def _steps(run: Run, end: int, step: Executable, watch: Stopwatch) -> None:
    """Steps up to step `end`, or to the first bad one.

    Raises:
      BadStepError: if the run is to go back to its last checkpoint.
    """
    session, skipped = run.session, run.at.passed_over
    batches = stream(session.windows, run.at.step + skipped, end + skipped)
    run.ledger.switch("data")
    with profiled(run, end) as profile:
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
            if _asked_to_stop(run) and run.at.step < end:
                read(run, step.count)
                close(run, session.config, step, watch)
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
    train, last = run.session.config.train, run.at.step == run.end
    due = lambda every: last or (every and run.at.step % every == 0)
    if due(train.eval_every):
        read(run, step.count)
        validate(run)
    cool_if_due(run, checked=bool(due(train.eval_every)))
    if run.origin.growth.look_every and run.at.step % run.origin.growth.look_every == 0:
        read(run, step.count)
        take_a_look(run)
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
