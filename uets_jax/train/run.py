"""A run: what changes while it goes on, and how it is saved."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from uets_jax.config import ExperimentConfig, config_hash, to_dict
from uets_jax.measure.efficiency import EfficiencyMonitor
from uets_jax.measure.energy import EnergyMeter
from uets_jax.measure.ledger import Ledger
from uets_jax.measure.machine import (
    live_array_bytes,
    peak_device_bytes,
    peak_rss_bytes,
)
from uets_jax.report.metrics import MetricsWriter
from uets_jax.report.progress import Progress
from uets_jax.report.trackers import Trackers
from uets_jax.train.files import told, write_json
from uets_jax.train.interrupts import Interrupts
from uets_jax.train.processes import is_main
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
    stage: stages of the growth plan that have been taken.
    slope: state of the estimate of the loss's slope since then.
    growth: what was done to the model's shape, an entry each time.
    checks: (step, bits per byte) of the validations that steer since the last growth.
    snapshot: the step after which the model grew that selection refers to; 0: there is
      none.
    cooldown: the step at which the cool-down to a target began; 0: it has not.
    end: the step at which it ends, and the run; 0: at `train.steps`.
    """

    step: int = 0
    passed_over: int = 0
    chain: str = ""
    streak: int = 0
    counts: dict[str, int] = dataclasses.field(
        default_factory=lambda: dict.fromkeys(COUNTS, 0)
    )
    last_loss: float | None = None  # of the last good step
    stage: int = 0
    slope: list[float] = dataclasses.field(default_factory=list)
    growth: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    last_valid: dict[str, float | int] = dataclasses.field(default_factory=dict)
    checks: list[list[int | float]] = dataclasses.field(default_factory=list)
    snapshot: int = 0
    cooldown: int = 0
    end: int = 0


@dataclasses.dataclass
class Run:
    """What changes while a run goes on, and what it writes to."""

    origin: ExperimentConfig  # as the run began; growth changes the session's
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
    monitor: EfficiencyMonitor | None = None  # where there is a baseline
    profile: int = 0  # steps to trace
    pending: Pending | None = None
    stop: str | None = None  # why the run is to stop
    saved: int = -1  # the step of the newest checkpoint
    rollbacks: int = 0  # since the newest checkpoint
    described: bool = False  # config.json and tokenizer.json are there
    phases: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    bytes: dict[str, int | None] = dataclasses.field(default_factory=dict)
    peaks: dict[str, int] = dataclasses.field(default_factory=dict)
    news: list[tuple[str, str]] = dataclasses.field(default_factory=list)  # events

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

    @property
    def end(self) -> int:
        """The step at which the run ends, as far as is known."""
        return self.at.end or self.origin.train.steps

    def look_at_memory(self) -> None:
        """Notes the most bytes seen so far, also before a resume.

        live_arrays: of all arrays, at a save or validation; rss_peak: of the process;
        device_peak: of the accelerators, where there are any.
        """
        seen = {
            "live_arrays": live_array_bytes(),
            "rss_peak": peak_rss_bytes(),
            "device_peak": peak_device_bytes(),
        }
        for name, size in seen.items():
            if size is not None:
                self.peaks[name] = max(size, self.peaks.get(name, 0))

    def event(self, name: str, detail: str, **more: Any) -> None:
        """Something that happened, into the metrics with what was spent so far."""
        record = {"step": self.at.step, "event": name, "detail": detail, **more}
        self.record({**record, **self.spent()})

    def compared(self, values: dict[str, Any]) -> dict[str, Any]:
        """A record of a step or a validation, and how that stands to the baseline."""
        if self.monitor is None:
            return values
        return {**values, **self.monitor.observe(values, self.bytes.get("step_peak"))}

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


def describe(run: Run) -> None:
    """Writes `config.json` and `tokenizer.json`, once a first step has worked."""
    if not run.described and is_main():
        with told(run.out):
            tokenizer = run.session.store.tokenizer.to_json()
            (run.out / "tokenizer.json").write_text(tokenizer, "utf-8")
            write_json(run.out / "config.json", to_dict(run.origin))
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
        "phases": run.phases,
        "peaks": run.peaks,
        "data_sha256": store.fingerprint,
        "assets_sha256": run.session.assets_sha256,
        "tokenizer_sha256": store.tokenizer.hash,
        "config_hash": config_hash(run.origin),
        "overrides": run.overrides,
    }
