"""A run: what changes while it goes on, how it begins, goes on and is saved."""

import contextlib
import dataclasses
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from uets_jax.build import hypers
from uets_jax.config import config_hash, to_dict
from uets_jax.measure.energy import EnergyMeter
from uets_jax.measure.ledger import Ledger
from uets_jax.measure.machine import live_array_bytes
from uets_jax.report.metrics import MetricsWriter, cut_back
from uets_jax.report.progress import Progress
from uets_jax.report.trackers import Trackers, open_trackers
from uets_jax.train import checkpoint
from uets_jax.train.files import told, write_json
from uets_jax.train.interrupts import Interrupts
from uets_jax.train.mesh import abstract_state
from uets_jax.train.processes import agreement, barrier, is_main
from uets_jax.train.sameness import (
    check_same_data,
    check_same_overrides,
    check_same_run,
)
from uets_jax.train.saver import Saver
from uets_jax.train.session import Session
from uets_jax.train.watchdog import Watchdog
from uets_jax.types import TrainState

COUNTS = ("resumes", "rollbacks", "skipped_steps")


class Pending(NamedTuple):
    """A step that was dispatched and whose metrics have not been read."""

    step: int
    metrics: Mapping[str, jax.Array]
    stop: jax.Array | bool  # whether any process was asked to stop


@dataclasses.dataclass
class Position:
    """Where a run is; all of it stands in a checkpoint's record.

    passed_over: batches that were left out by rollbacks: step n reads batch
      n + passed_over.
    chain: hash of the ids consumed so far.
    streak: updates left out in a row.
    """

    step: int = 0
    passed_over: int = 0
    chain: str = ""
    streak: int = 0
    counts: dict[str, int] = dataclasses.field(
        default_factory=lambda: dict.fromkeys(COUNTS, 0)
    )
    last_loss: float = math.nan
    last_valid: dict[str, float | int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Run:
    """What changes while a run goes on, and what it writes to."""

    session: Session
    overrides: list[str]  # names of the user's own parts
    out: Path
    state: TrainState
    at: Position
    ledger: Ledger
    meter: EnergyMeter
    metrics: MetricsWriter
    progress: Progress
    saver: Saver
    trackers: Trackers
    watchdog: Watchdog
    interrupts: Interrupts
    ask: Any  # own wish to stop -> whether any process has it
    profile: int = 0  # steps to trace
    pending: Pending | None = None
    stop: str | None = None  # why the run is to stop
    saved: int = -1  # the step of the newest checkpoint
    rollbacks: int = 0  # since the newest checkpoint
    described: bool = False  # config.json and tokenizer.json are there
    phases: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    bytes: dict[str, int | None] = dataclasses.field(default_factory=dict)
    live_bytes: int = 0  # most bytes of arrays seen at a save or validation

    @contextlib.contextmanager
    def open(self) -> Iterator["Run"]:
        """Within, signals are caught and files are open; pending saves end with it."""
        with contextlib.ExitStack() as stack:
            for each in (
                self.watchdog,
                self.metrics,
                self.progress,
                self.trackers,
                self.saver,
                self.interrupts,
            ):
                stack.enter_context(each)
            yield self

    def look_at_memory(self) -> None:
        """Notes how many bytes of arrays there are, if never more were seen."""
        self.live_bytes = max(self.live_bytes, live_array_bytes())

    def event(self, name: str, detail: str) -> None:
        """Something that happened, into the metrics with what was spent so far."""
        record = {"step": self.at.step, "event": name, "detail": detail}
        self.record({**record, **self.spent()})

    def record(self, values: dict[str, Any]) -> None:
        """One line of metrics, to the file and to the trackers."""
        self.metrics.write(values)
        self.trackers.write(values)

    def spent(self) -> dict[str, int | float]:
        """What every record says of the cost so far."""
        spent = {
            "tokens": self.ledger.tokens,
            "flops": self.ledger.training_flops(),
            "seconds": round(self.ledger.training_seconds(), 4),
        }
        joules = self.joules()
        return spent if joules is None else {**spent, "joules": round(joules, 1)}

    def joules(self) -> float | None:
        """Energy drawn so far, the parts before a resume included, where measured."""
        own = self.meter.joules()
        return None if own is None else self.ledger.joules + own


def begin(
    session: Session,
    out: Path,
    resume: bool,
    ledger: Ledger,
    overrides: list[str],
    allow: Sequence[str] = (),
) -> Run:
    """A fresh run, or the newest intact checkpoint of an old one.

    Raises:
      UserError: if `out` can't be written, or the run in it is another one.
    """
    ledger.switch("compile")
    config, notes, changed = session.config, [], []
    state, record = None, {}
    with told(out):
        if is_main():
            out.mkdir(parents=True, exist_ok=True)
        barrier("folder")
        if resume:
            changed = check_same_run(config, out / "config.json", allow)
            same = Same(session, overrides, allow, changed)
            state, record, notes = restore(same, out / "checkpoints")
        at = Position(**record.get("position", {}))
        if is_main():
            cut_back(out / "metrics.jsonl", at.step)
    if state is None:
        state = session.initial_state()
    else:
        ledger.carry(record["ledger"])
        state = state._replace(hypers=session.place_hypers(hypers(config)))
    at.counts["resumes"] += bool(record)
    progress = progress_of(session, at.step)
    run = Run(
        session=session,
        overrides=overrides,
        out=out,
        state=state,
        at=at,
        ledger=ledger,
        meter=EnergyMeter(),
        metrics=MetricsWriter(out / "metrics.jsonl" if is_main() else Path(os.devnull)),
        progress=progress,
        saver=Saver(out / "checkpoints", config.train.keep),
        trackers=trackers_of(session, out, progress),
        watchdog=Watchdog(config.train.watchdog if jax.process_count() > 1 else 0),
        interrupts=Interrupts(),
        ask=agreement(session.mesh),
        saved=at.step or -1,
        described=(out / "config.json").exists() and not changed,
    )
    for name, details in (("resume", notes), ("allowed", changed)):
        for detail in details:
            run.progress.note(detail)
            run.event(name, detail)
    return run


def progress_of(session: Session, step: int) -> Progress:
    """The progress lines of process 0; the others are silent."""
    train = session.config.train
    stream = sys.stderr if is_main() else Silent()
    return Progress(train.steps, step, train.log_every, stream)


class Silent:
    """A stream that says nothing."""

    def write(self, text: str, /) -> None:
        """Forgets the text."""

    def flush(self) -> None:
        """Has nothing to pass on."""


def trackers_of(session: Session, out: Path, progress: Progress) -> Trackers:
    """The configured trackers of process 0."""
    config = session.config
    names = config.train.trackers if is_main() else ""
    return open_trackers(names, out, to_dict(config), config.name, progress.note)


class Same(NamedTuple):
    """What a checkpoint is compared with; `changed` collects what may differ."""

    session: Session
    overrides: list[str]
    allow: Sequence[str]
    changed: list[str]

    def check(self, root: Path, record: dict[str, Any]) -> None:
        """Raises `UserError` for the first difference that is not allowed."""
        store = self.session.store
        hashes = (store.tokenizer.hash, store.fingerprint)
        found = check_same_data(root, record, *hashes, self.allow)
        found += check_same_overrides(root, record, self.overrides, self.allow)
        self.changed.extend(found)


def restore(
    same: Same, root: Path
) -> tuple[TrainState | None, dict[str, Any], list[str]]:
    """(state or None, record, what to tell): the newest checkpoint that verifies.

    Damaged ones are set aside, so that they never count as newer than what follows.
    """
    abstract = abstract_state(same.session.program, same.session.mesh)
    check = lambda record: same.check(root, record)
    found, damaged = checkpoint.load_newest(root, abstract, check)
    notes = [f"left out a damaged checkpoint: {what}" for what in damaged]
    state, record, told_last = None, {}, "no complete checkpoint: starting at step 0"
    if found is not None:
        state, record = found
        told_last = f"resumed at step {record['step']}"
    barrier("restored")
    if is_main():
        checkpoint.set_aside(root, above=record.get("step", -1))
    return state, record, [*notes, told_last]


def describe(run: Run) -> None:
    """Writes `config.json` and `tokenizer.json`, once a first step has worked."""
    if not run.described and is_main():
        with told(run.out):
            tokenizer = run.session.store.tokenizer.to_json()
            (run.out / "tokenizer.json").write_text(tokenizer, "utf-8")
            write_json(run.out / "config.json", to_dict(run.session.config))
    run.described = True


def save(run: Run) -> None:
    """Begins a checkpoint of everything in `run`."""
    before = run.ledger.switch("checkpoint")
    run.watchdog.beat(f"saving step {run.at.step}")
    describe(run)
    run.look_at_memory()
    run.metrics.flush()
    run.saver.save(run.state, _record(run))
    run.saved, run.rollbacks = run.at.step, 0
    run.ledger.switch(before)


def _record(run: Run) -> dict[str, Any]:
    store = run.session.store
    spent = {**run.ledger.to_dict(), "joules": run.joules() or run.ledger.joules}
    return {
        "step": run.at.step,
        "position": dataclasses.asdict(run.at),
        "next_batch": run.at.step + run.at.passed_over,
        "ledger": spent,
        "data_sha256": store.fingerprint,
        "tokenizer_sha256": store.tokenizer.hash,
        "config_hash": config_hash(run.session.config),
        "overrides": run.overrides,
    }
