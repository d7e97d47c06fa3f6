"""What a phase was like: its speed against the roofline, a trace of a few steps."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import jax

from uets_jax.config import ExperimentConfig, window_length
from uets_jax.measure.devices import current, measured_cpu
from uets_jax.measure.flops import train_flops
from uets_jax.measure.roofline import roofline
from uets_jax.train.executable import Executable
from uets_jax.train.processes import is_main
from uets_jax.train.run import Run

WARM_UP = 3  # steps before a trace begins


class Stopwatch:
    """Steps and seconds of training, waiting for data included.

    It starts again once, when the first step has been read, for that one sets things
    up; a process that makes but one or two steps is timed from the beginning.
    """

    def __init__(self, run: Run) -> None:
        self._settled = False
        self._begin(run)

    def _begin(self, run: Run) -> None:
        self._steps, self._seconds = 0, run.ledger.training_seconds()

    def lap(self, run: Run) -> None:
        """Called after each step, also after one that a rollback will take back."""
        self._steps += 1
        if not self._settled and self._steps == 2:
            self._settled = True
            self._begin(run)

    def read(self, run: Run) -> tuple[int, float]:
        """(steps, seconds) so far."""
        return self._steps, run.ledger.training_seconds() - self._seconds


def close(
    run: Run, config: ExperimentConfig, step: Executable, watch: Stopwatch
) -> None:
    """Notes the phase's MFU and its place under the roofline."""
    steps, seconds = watch.read(run)
    before = run.ledger.switch("report")
    on_cpu = jax.default_backend() == "cpu"
    device = measured_cpu() if on_cpu else current()
    if not steps or not seconds or device is None:
        return
    costs = step.count.always
    found = roofline(
        flops_per_step=sum(c.matmul for c in costs.values()),
        model_flops_per_step=model_flops(config, costs["forward_backward"].matmul),
        bytes_per_step=sum(c.bytes for c in costs.values()),
        seconds_per_step=seconds / steps,
        device=device,
        dtype=config.model.dtype,
        devices=1 if on_cpu else run.session.mesh.size,
    )
    figures = {"phase": len(run.phases) + 1, "steps": steps, "end": run.at.step}
    speed = {"seconds_per_step": seconds / steps}
    run.phases.append({**figures, **speed, **found.to_dict()})
    run.progress.note(found.line)
    run.ledger.switch(before)


def model_flops(config: ExperimentConfig, counted: int) -> int:
    """Matmul FLOPs of forward and backward in a step, without recomputation."""
    if not config.model.remat:
        return counted
    model = dataclasses.replace(config.model, remat=False)
    length = window_length(config)
    return train_flops(model, length) * length * config.train.batch


class Profile:
    """Traces some steps; `step` is called after each one."""

    def __init__(self, first: int, steps: int, folder: str) -> None:
        self._first, self._last = first, first + steps
        self._folder, self._done, self._on = folder, 0, False

    def step(self) -> None:
        """One more step is done."""
        if self._done == self._first and self._last > self._first:
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
            self._on = True
        if self._done == self._last:
            self.stop()
        self._done += 1

    def stop(self) -> None:
        """Writes the trace, if one is on."""
        if self._on:
            jax.profiler.stop_trace()
            self._on = False


@contextlib.contextmanager
def profiled(run: Run, end: int) -> Iterator[Any]:
    """Traces `run.profile` steps, once per run, after a few to warm up."""
    wanted = run.profile if is_main() else 0
    steps = min(wanted, end - run.at.step - WARM_UP)
    folder = run.out / "profile"
    profile = Profile(WARM_UP, max(0, steps), str(folder))
    try:
        yield profile
    finally:
        profile.stop()
        run.profile = 0
        if steps > 0:
            run.progress.note(f"trace of {steps} steps: {folder}")
        elif wanted:
            run.progress.note(f"no trace: fewer than {WARM_UP + 1} steps are left")
