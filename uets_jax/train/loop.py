"""The loop: a run is a fold over phases, each with constant shapes and one executable.

Per step: take a batch, dispatch the step, read the metrics of the step before. At fixed
steps: validate, save. A signal saves and stops; a non-finite loss stops.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from uets_jax.config import ExperimentConfig, to_json, window_length
from uets_jax.data.windows import chain_ids, stream
from uets_jax.errors import NonFiniteLossError, StoppedError, UserError
from uets_jax.evaluate.perplexity import bits_per_byte, perplexity, target_bytes
from uets_jax.measure.energy import EnergyMeter
from uets_jax.measure.flops import forward_flops, step_flops
from uets_jax.measure.ledger import Ledger
from uets_jax.report.metrics import MetricsWriter, cut_back
from uets_jax.report.progress import Progress
from uets_jax.train import checkpoint
from uets_jax.train.interrupts import Interrupts
from uets_jax.train.mesh import abstract_state, compile_step, put_batch
from uets_jax.train.session import Session, open_session
from uets_jax.train.summary import finish
from uets_jax.types import TrainState


class Result(NamedTuple):
    """A finished run: its resolved config, last state and summary."""

    config: ExperimentConfig
    state: TrainState
    summary: dict[str, Any]


class Phase(NamedTuple):
    """A stretch of steps with constant shapes, up to step `end`."""

    config: ExperimentConfig
    end: int


class Pending(NamedTuple):
    """A step that was dispatched and whose metrics have not been read."""

    step: int
    flops: int  # charged up to and with this step
    metrics: Mapping[str, jax.Array]


@dataclasses.dataclass
class Run:
    """What changes while a run goes on; a checkpoint holds all of it."""

    session: Session
    out: Path
    state: TrainState
    step: int
    chain: str  # of the ids consumed so far
    ledger: Ledger
    meter: EnergyMeter
    metrics: MetricsWriter
    progress: Progress
    pending: Pending | None = None
    last_valid: dict[str, float | int] = dataclasses.field(default_factory=dict)
    last_loss: float = math.nan
    saved: int = -1


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
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(to_json(session.config), "utf-8")
    run = _begin(session, out, resume, ledger)
    with run.metrics, run.progress, Interrupts() as interrupts:
        for phase in phases(session.config):
            _run_phase(run, phase, interrupts)
        if run.saved != run.step:
            _save(run)
    summary = finish(run)
    return Result(session.config, run.state, summary)


def phases(config: ExperimentConfig) -> tuple[Phase, ...]:
    """The run's stretches of constant shapes: one, until something grows."""
    return (Phase(config, config.train.steps),)


def _begin(session: Session, out: Path, resume: bool, ledger: Ledger) -> Run:
    """A fresh run, or the newest intact checkpoint of an old one."""
    ledger.switch("compile")
    state, record, notes = None, {"step": 0, "chain": ""}, []
    if resume:
        state, record, notes = _restore(session, out / "checkpoints")
        cut_back(out / "metrics.jsonl", record["step"])
    if state is None:
        state = session.initial_state()
    else:
        ledger.carry(record["ledger"])
    config = session.config
    run = Run(
        session=session,
        out=out,
        state=state,
        step=record["step"],
        chain=record["chain"],
        ledger=ledger,
        meter=EnergyMeter(),
        metrics=MetricsWriter(out / "metrics.jsonl"),
        progress=Progress(config.train.steps, record["step"], config.train.log_every),
        last_valid=record.get("last_valid", {}),
        last_loss=record.get("last_loss", math.nan),
        saved=record["step"] if resume and record["step"] else -1,
    )
    for note in notes:
        run.progress.note(note)
        run.metrics.write({"step": run.step, "event": "resume", "detail": note})
    return run


def _restore(
    session: Session, root: Path
) -> tuple[TrainState | None, dict[str, Any], list[str]]:
    """(state or None, record, what to tell): the newest checkpoint that verifies."""
    abstract = abstract_state(session.program, session.mesh)
    found, damaged = checkpoint.load_newest(root, abstract)
    notes = [f"left out a damaged checkpoint: {what}" for what in damaged]
    if found is None:
        start = {"step": 0, "chain": ""}
        return None, start, [*notes, "no complete checkpoint: starting at step 0"]
    state, record = found
    stored, have = record["data_sha256"], session.store.fingerprint
    if stored != have:
        raise UserError(
            f"{root}: was trained on other data ({stored[:12]}, now {have[:12]}); "
            "restore data.source as it was"
        )
    return state, record, [*notes, f"resumed at step {record['step']}"]


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
        run.chain = chain_ids(run.chain, session.windows.order(run.step))
        run.step += 1
        run.ledger.charge(cost)
        _read(run)
        run.pending = Pending(run.step, run.ledger.training_flops(), metrics)
        category = "train"
        _at_fixed_steps(run, phase)
        if interrupts.caught and run.step < phase.end:
            _stop(run, interrupts.caught)
        run.ledger.switch("data")
    run.ledger.switch("train")
    _read(run)


def _at_fixed_steps(run: Run, phase: Phase) -> None:
    """Validation, then a checkpoint, where the config asks for them."""
    train, last = run.session.config.train, run.step == run.session.config.train.steps
    due = lambda every: last or (every and run.step % every == 0)
    if due(train.eval_every):
        _read(run)
        _validate(run)
    if due(train.checkpoint_every):
        _read(run)
        _save(run)


def _read(run: Run) -> None:
    """Fetches and logs the metrics of the last step dispatched before this one."""
    if run.pending is None:
        return
    step, flops, metrics = run.pending
    run.pending = None
    values = {k: float(v) for k, v in jax.device_get(dict(metrics)).items()}
    run.ledger.charge({}, tokens=int(values.pop("targets")))
    seconds = round(run.ledger.training_seconds(), 4)
    counts = {"tokens": run.ledger.tokens, "flops": flops, "seconds": seconds}
    record = {"step": step, **values, **counts}
    run.metrics.write(record)
    run.progress.update(step, values["loss"], run.ledger.tokens)
    run.last_loss = values["loss"]
    if not (math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"])):
        run.metrics.flush()
        raise NonFiniteLossError(
            f"{run.out}: loss {values['loss']}, gradient norm {values['grad_norm']} at "
            f"step {step}; lower --optim.learning-rate, or see metrics.jsonl"
        )


def _validate(run: Run) -> None:
    """Loss on held-out text, into the metrics."""
    session, before = run.session, run.ledger.switch("eval")
    limit = session.config.train.eval_tokens
    found = validation(session, run.state, "valid", limit)
    per_token = forward_flops(session.config.model, window_length(session.config))
    run.ledger.charge({"evaluation": per_token * int(found["valid_tokens"])})
    run.last_valid = found
    record = {
        "step": run.step,
        **found,
        "tokens": run.ledger.tokens,
        "flops": run.ledger.training_flops(),
        "seconds": round(run.ledger.training_seconds(), 4),
    }
    run.metrics.write(record)
    run.progress.note(
        f"step {run.step}: validation loss {found['valid_loss']:.4f}, "
        f"{found['bits_per_byte']:.4f} bits per byte"
    )
    run.ledger.switch(before)


def validation(
    session: Session, state: TrainState, split: str, tokens: int
) -> dict[str, float | int]:
    """`valid_loss`, `perplexity`, `bits_per_byte` and counts on a split."""
    put = lambda batch: put_batch(batch, session.mesh, shared=True)
    batches = lambda: session.evaluation(split, tokens)
    found = perplexity(session.program, state.params, batches(), put)
    size = target_bytes(batches(), session.store.tokenizer.token_bytes)
    return {**found, "bits_per_byte": bits_per_byte(found["valid_nats"], size)}


def _save(run: Run) -> None:
    """A checkpoint of everything in `run`."""
    before = run.ledger.switch("checkpoint")
    run.metrics.flush()
    spent = run.ledger.to_dict()
    spent["joules"] = run.ledger.joules + (run.meter.joules() or 0.0)
    record = {
        "step": run.step,
        "next_batch": run.step,
        "chain": run.chain,
        "ledger": spent,
        "last_valid": run.last_valid,
        "last_loss": run.last_loss,
        "data_sha256": run.session.store.fingerprint,
        "tokenizer": run.session.store.tokenizer.hash,
        "config": run.session.config.name,
        "history": [],
    }
    keep = run.session.config.train.keep
    checkpoint.save(run.out / "checkpoints", run.state, record, keep)
    run.saved = run.step
    run.ledger.switch(before)


def _stop(run: Run, name: str) -> None:
    """Saves the current step and ends the run."""
    _read(run)
    if run.saved != run.step:
        _save(run)
    run.metrics.write({"step": run.step, "event": "stopped", "detail": name})
    raise StoppedError(
        f"{run.out}: stopped by {name} at step {run.step}, checkpoint saved; go on "
        f"with --resume {run.out}"
    )
