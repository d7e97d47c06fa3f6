"""A run: what changes while it goes on, how it begins, goes on and is saved."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from uets_jax.config import FREE_ON_RESUME, ExperimentConfig, config_hash, to_dict
from uets_jax.errors import UserError
from uets_jax.measure.energy import EnergyMeter
from uets_jax.measure.ledger import Ledger
from uets_jax.models.presets import read_config
from uets_jax.report.metrics import MetricsWriter, cut_back
from uets_jax.report.progress import Progress
from uets_jax.train import checkpoint
from uets_jax.train.files import told, write_json
from uets_jax.train.mesh import abstract_state
from uets_jax.train.session import Session
from uets_jax.types import TrainState


class Pending(NamedTuple):
    """A step that was dispatched and whose metrics have not been read."""

    step: int
    flops: int  # charged up to and with this step
    metrics: Mapping[str, jax.Array]


@dataclasses.dataclass
class Run:
    """What changes while a run goes on; a checkpoint holds all of it."""

    session: Session
    overrides: list[str]  # names of the user's own parts
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
    saved: int = -1  # the step of the newest checkpoint
    described: bool = False  # config.json and tokenizer.json are there


def begin(
    session: Session, out: Path, resume: bool, ledger: Ledger, overrides: list[str]
) -> Run:
    """A fresh run, or the newest intact checkpoint of an old one.

    Raises:
      UserError: if `out` can't be written, or the run in it is another one.
    """
    ledger.switch("compile")
    state, record, notes = None, {"step": 0, "chain": ""}, []
    with told(out):
        out.mkdir(parents=True, exist_ok=True)
        if resume:
            check_same_run(session.config, out / "config.json")
            state, record, notes = restore(session, out / "checkpoints", overrides)
        cut_back(out / "metrics.jsonl", record["step"])
    if state is None:
        state = session.initial_state()
    else:
        ledger.carry(record["ledger"])
    config = session.config
    run = Run(
        session=session,
        overrides=overrides,
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
        saved=record["step"] or -1,
        described=(out / "config.json").exists(),
    )
    for note in notes:
        run.progress.note(note)
        run.metrics.write({"step": run.step, "event": "resume", "detail": note})
    return run


def check_same_run(config: ExperimentConfig, stored: Path) -> None:
    """Compares a config with that of the run that it is to continue.

    Raises:
      UserError: naming the first field that differs.
    """
    if not stored.exists():
        return
    old, new = (_flat(to_dict(c)) for c in (read_config(stored), config))
    for field in old:
        if field not in FREE_ON_RESUME and old[field] != new[field]:
            raise UserError(
                f"{stored}: {field} is {old[field]!r} there but {new[field]!r} now; "
                "resume with the stored config, or train anew in another --out"
            )


def _flat(values: dict[str, Any], where: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        path = f"{where}.{key}" if where else key
        flat |= _flat(value, path) if isinstance(value, dict) else {path: value}
    return flat


def restore(
    session: Session, root: Path, overrides: list[str]
) -> tuple[TrainState | None, dict[str, Any], list[str]]:
    """(state or None, record, what to tell): the newest checkpoint that verifies.

    Damaged ones are set aside, so that they never count as newer than what follows.
    """

    def check(record: dict[str, Any]) -> None:
        check_same_data(root, record, session.store.fingerprint)
        check_same_overrides(root, record, overrides)

    abstract = abstract_state(session.program, session.mesh)
    found, damaged = checkpoint.load_newest(root, abstract, check)
    notes = [f"left out a damaged checkpoint: {what}" for what in damaged]
    if found is not None:
        state, record = found
        checkpoint.set_aside(root, above=record["step"])
        return state, record, [*notes, f"resumed at step {record['step']}"]
    checkpoint.set_aside(root, above=-1)
    start = {"step": 0, "chain": ""}
    return None, start, [*notes, "no complete checkpoint: starting at step 0"]


def check_same_overrides(root: Path, record: dict[str, Any], have: list[str]) -> None:
    """Raises `UserError` unless the user's own parts have the names they had."""
    if record["overrides"] != have:
        raise UserError(
            f"{root}: was trained with overrides {record['overrides']}, now {have}; "
            "give the same ones to the Python function"
        )


def check_same_data(root: Path, record: dict[str, Any], have: str) -> None:
    """Raises `UserError` unless the tokens are those that the run was trained on."""
    stored = record["data_sha256"]
    if stored != have:
        raise UserError(
            f"{root}: was trained on other data ({stored[:12]}, now {have[:12]}): what "
            "data.source reads has changed; restore it"
        )


def describe(run: Run) -> None:
    """Writes `config.json` and `tokenizer.json`, once a first step has worked."""
    if not run.described and jax.process_index() == 0:
        with told(run.out):
            tokenizer = run.session.store.tokenizer.to_json()
            (run.out / "tokenizer.json").write_text(tokenizer, "utf-8")
            write_json(run.out / "config.json", to_dict(run.session.config))
    run.described = True


def save(run: Run) -> None:
    """A checkpoint of everything in `run`."""
    before = run.ledger.switch("checkpoint")
    describe(run)
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
        "tokenizer_sha256": run.session.store.tokenizer.hash,
        "config_hash": config_hash(run.session.config),
        "overrides": run.overrides,
    }
    keep = run.session.config.train.keep
    checkpoint.save(run.out / "checkpoints", run.state, record, keep)
    run.saved = run.step
    run.ledger.switch(before)
