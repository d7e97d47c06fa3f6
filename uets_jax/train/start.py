"""How a run begins: afresh, or from the newest intact checkpoint of an old one."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from uets_jax.config import to_dict
from uets_jax.errors import UserError
from uets_jax.measure.energy import EnergyMeter
from uets_jax.measure.ledger import Ledger
from uets_jax.report.metrics import MetricsWriter, cut_back
from uets_jax.report.progress import Progress
from uets_jax.report.trackers import Trackers, open_trackers
from uets_jax.train import checkpoint
from uets_jax.train.compared import open_monitor
from uets_jax.train.files import told
from uets_jax.train.interrupts import Interrupts
from uets_jax.train.processes import agreement, alike, barrier, is_main
from uets_jax.train.run import Position, Run
from uets_jax.train.sameness import (
    check_same_assets,
    check_same_data,
    check_same_overrides,
    check_same_run,
    flat,
)
from uets_jax.train.saver import Saver
from uets_jax.train.session import Session
from uets_jax.train.shapes import abstract_at, session_at
from uets_jax.train.snapshot import restored
from uets_jax.train.stopping import placed_hypers
from uets_jax.train.tuning import stored
from uets_jax.train.watchdog import Watchdog
from uets_jax.types import TrainState

# fields in which the processes of a run may differ
OWN = (
    "data.cache",
    "train.baseline",
    "train.log_every",
    "train.trackers",
    "train.watchdog",
)


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
    config, notes, changed, news = session.config, [], [], []
    state, record = None, {}
    check_alike(session, out, resume, overrides, allow)
    with told(out):
        if resume:
            changed = check_same_run(config, out / "config.json", allow)
            same = Same(session, overrides, allow, changed)
            state, record, notes = restore(same, out / "checkpoints")
        at = Position(**record.get("position", {}))
        alike({"step of the checkpoint": at.step})
        if at.step > config.train.steps:
            raise UserError(
                f"train.steps: {config.train.steps} is less than the {at.step} that "
                f"{out} has already made"
            )
        if at.end > config.train.steps:
            raise UserError(
                f"train.steps: {config.train.steps} is less than {at.end}, the end of "
                f"the cool-down that {out} has begun"
            )
        if is_main():
            cut_back(out / "metrics.jsonl", at.step)
    if state is None:
        state = session.initial_state()
        ledger.charge(session.start_costs())
        if config.train.tune and (tuning := stored(out)) is not None:
            said, cost = tuning
            news.append(("tuned", f"tuned: {said}"))
            ledger.charge({"probe": cost})
    else:
        ledger.carry(record["ledger"])
        values = session.place_hypers(placed_hypers(config, at))
        state = state._replace(hypers=values)
    at.counts["resumes"] += bool(record)
    session = restored(session_at(session, record), out, at.snapshot)
    progress = progress_of(session, at.step, at.end)
    run = Run(
        origin=config,
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
        phases=record.get("phases", []),
        peaks=record.get("peaks", {}),
        news=news + [("resume", n) for n in notes] + [("allowed", c) for c in changed],
    )
    run.monitor, said = open_monitor(session, overrides, out / "metrics.jsonl")
    run.news += said
    return run


def tell(run: Run) -> None:
    """Says how the run begins, on the terminal and as events."""
    for name, detail in run.news:
        run.progress.note(detail)
        run.event(name, detail)


def already_finished(run: Run) -> dict[str, Any] | None:
    """The summary of a run that has nothing left to do."""
    path = run.out / "summary.json"
    if run.at.step < run.end or not path.exists():
        return None
    with run.open():
        run.progress.note(f"{run.out}: already finished, at step {run.at.step}")
    return json.loads(path.read_text("utf-8"))


def check_alike(
    session: Session,
    out: Path,
    resume: bool,
    overrides: list[str],
    allow: Sequence[str],
) -> None:
    """Compares what the processes of a run were started with.

    Raises:
      UserError: in all of them, naming the first difference.
    """
    if jax.process_count() == 1:
        return
    settings = flat(to_dict(session.config))
    shared = {k: v for k, v in settings.items() if k not in OWN}
    store = {"text": session.store.fingerprint, "jax": jax.__version__}
    store["target sample or reference"] = session.assets_sha256
    how = {"--out": str(out), "--resume": resume, "--allow": sorted(allow)}
    alike({**shared, **store, **how, "overrides": overrides})


def progress_of(session: Session, step: int, end: int = 0) -> Progress:
    """The progress lines of process 0; the others are silent."""
    train = session.config.train
    stream = sys.stderr if is_main() else Silent()
    return Progress(end or train.steps, step, train.log_every, stream)


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
        made_from = self.session.assets_sha256
        found += check_same_assets(root, record, made_from, self.allow)
        found += check_same_overrides(root, record, self.overrides, self.allow)
        self.changed.extend(found)


def restore(
    same: Same, root: Path
) -> tuple[TrainState | None, dict[str, Any], list[str]]:
    """(state or None, record, what to tell): the newest checkpoint that verifies.

    Damaged ones are set aside, so that they never count as newer than what follows.
    """
    abstract = lambda record: abstract_at(same.session, record)
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
