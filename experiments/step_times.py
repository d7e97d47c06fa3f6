"""What a step takes on a quiet machine: timed alone, after all runs.

The runs of a queue share the machine with each other, so their own seconds can't be
compared. Here each step has it for itself, in a fresh process without any compilation
cache: `python -m experiments.step_times CONFIG.json` prints one JSON object.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from uets_jax.config import ExperimentConfig, to_json
from uets_jax.errors import UserError
from uets_jax.models.presets import read_config
from uets_jax.train.executable import abstract_batch, shapes
from uets_jax.train.mesh import abstract_state, compile_step, put_batch
from uets_jax.train.session import open_session

WARM_UP, STEPS = 5, 40
UNCACHED = {"JAX_ENABLE_COMPILATION_CACHE": "false"}


@dataclasses.dataclass(frozen=True)
class StepTime:
    """step_seconds:    median of a training step.
    compile_seconds: tracing and compiling it, without any cache.
    peak_bytes:      of its memory, as XLA says; None where it says nothing.
    start_seconds:   the state before the first step, once that is compiled.
    """

    step_seconds: float
    compile_seconds: float
    peak_bytes: int | None
    start_seconds: float = 0.0


def step_time(config: ExperimentConfig) -> StepTime:
    """`timed` in a process of its own.

    Raises:
      UserError: if that one fails; its own words stand above.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(to_json(config), "utf-8")
        command = [sys.executable, "-m", "experiments.step_times", str(path)]
        environment = {**os.environ, **UNCACHED}
        said = subprocess.run(command, env=environment, stdout=subprocess.PIPE)
    if said.returncode:
        raise UserError(f"{config.name}: its step could not be timed")
    return StepTime(**json.loads(said.stdout.splitlines()[-1]))


def timed(config: ExperimentConfig) -> StepTime:
    """Compiles the step of a run and times it on the run's own batches."""
    session = open_session(config)
    jax.block_until_ready(session.initial_state())
    start = time.perf_counter()
    state = jax.block_until_ready(session.initial_state())
    beginning = time.perf_counter() - start
    fed = shapes(session.config, session.assets)
    batch = abstract_batch(fed.rows, fed.length)
    abstract = abstract_state(session.program, session.mesh)
    start = time.perf_counter()
    step = compile_step(session.program, session.mesh).lower(
        abstract, batch, session.assets
    )
    compiled = step.compile()
    compiling = time.perf_counter() - start
    seconds = []
    for i in range(WARM_UP + STEPS):
        pool = put_batch(session.windows[i], session.mesh)
        start = time.perf_counter()
        state, metrics = compiled(state, pool, session.assets)
        jax.block_until_ready((state, metrics))
        seconds.append(time.perf_counter() - start)
    found = compiled.memory_analysis()
    peak = None
    if found is not None:
        peak = found.argument_size_in_bytes + found.temp_size_in_bytes
        peak += found.output_size_in_bytes - found.alias_size_in_bytes
    return StepTime(float(np.median(seconds[WARM_UP:])), compiling, peak, beginning)


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(timed(read_config(Path(sys.argv[1]))))))
