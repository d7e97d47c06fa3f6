"""What a step takes on a quiet machine: timed alone, after all runs.

The runs of a queue share the machine with each other, so their own seconds can't be
compared. Here each compiled step has it for itself.
"""

import dataclasses
import time

import jax
import numpy as np

from uets_jax.config import ExperimentConfig, window_length
from uets_jax.train.executable import abstract_batch
from uets_jax.train.mesh import abstract_state, compile_step, put_batch
from uets_jax.train.session import open_session

WARM_UP, STEPS = 5, 40


@dataclasses.dataclass(frozen=True)
class StepTime:
    """step_seconds:    median of a training step.
    compile_seconds: tracing and compiling it, without any cache.
    peak_bytes:      of its memory, as XLA says; None where it says nothing.
    """

    step_seconds: float
    compile_seconds: float
    peak_bytes: int | None


def step_time(config: ExperimentConfig) -> StepTime:
    """Compiles the step of a run and times it on the run's own batches."""
    session = open_session(config)
    rows, length = config.train.batch, window_length(config)
    state, batch = session.initial_state(), abstract_batch(rows, length)
    shapes = abstract_state(session.program, session.mesh)
    cached = jax.config.jax_enable_compilation_cache  # pyright: ignore
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        start = time.perf_counter()
        step = compile_step(session.program, session.mesh).lower(shapes, batch, None)
        compiled = step.compile()
        compiling = time.perf_counter() - start
    finally:
        jax.config.update("jax_enable_compilation_cache", cached)
    seconds = []
    for i in range(WARM_UP + STEPS):
        pool = put_batch(session.windows[i], session.mesh)
        start = time.perf_counter()
        state, metrics = compiled(state, pool, None)
        jax.block_until_ready((state, metrics))
        seconds.append(time.perf_counter() - start)
    found = compiled.memory_analysis()
    peak = None
    if found is not None:
        peak = found.argument_size_in_bytes + found.temp_size_in_bytes
        peak += found.output_size_in_bytes - found.alias_size_in_bytes
    return StepTime(float(np.median(seconds[WARM_UP:])), compiling, peak)
