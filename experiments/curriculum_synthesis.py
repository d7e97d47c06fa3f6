"""The fourth stage of the curriculum: made-up rows in some of the batches.

From half of the run on, in every eighth step a quarter of the batch is replaced by rows
made from it: continuations that the model samples where it was least sure, or
recombinations. A made-up row that the judge rejects leaves the real one where it is. An
experiment's part, not a program's: it is given to `train` as an override.
"""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from experiments.curriculum_plan import BUDGET, RATE, RECIPE, TRACK, Options, configure
from experiments.runner import KEPT, Job, Measure, Results, claimed, read_result
from uets_jax.build import build
from uets_jax.component import Selection
from uets_jax.config import CurriculumConfig, ExperimentConfig, config_hash, to_dict
from uets_jax.errors import NonFiniteLossError
from uets_jax.measure.scopes import branch
from uets_jax.selection.synthesis import Bands, continuations, judge, recombinations
from uets_jax.train.files import said_to, write_json
from uets_jax.train.loop import train
from uets_jax.types import IGNORED, Batch, Metrics, Moment, Stats

ARMS = ("continuations", "recombinations")
BEGIN, EVERY, PART = 0.5, 8, 4  # share of the run; steps; 1 / share of the batch
TOKENS = 16  # sampled for a continuation
MEMORY = 0.9  # of the running means, by step
LOSS = (0.5, 1.1)  # of the mean loss: neither known nor implausible
METRICS = ("synthetic_accepted", "synthetic_loss", "synthetic_entropy")
ENTROPY = (0.9, 100.0)  # of the mean entropy: where the model is unsure


class SynthesisState(NamedTuple):
    """Calls so far, and running means over tokens in nats; 0 before the first."""

    calls: Int[Array, ""]
    loss: Float[Array, ""]
    entropy: Float[Array, ""]


def synthesis(
    way: str, forward: Callable[..., Any], logits: Callable[..., Array], batch: int
) -> Selection:
    """Trains on all that is offered, but for the rows that it makes up.

    Args:
      way: one of `ARMS`.
      forward, logits: of the program.
      batch: rows; the first quarter of them, at least two, is replaced.
    """
    rows = max(batch // PART, 2)

    def init(params: Any) -> SynthesisState:
        return SynthesisState(jnp.int32(0), jnp.float32(0), jnp.float32(0))

    def make(state: SynthesisState, real: Batch, moment: Moment) -> Any:
        if way == "recombinations":
            new = recombinations(real, moment.key)
        else:
            unsure = forward(moment.params, real)[1].entropy
            given = (logits, moment.params, real, unsure, moment.key)
            new = continuations(*given, tokens=TOKENS)
        scaled = lambda band, mean: (band[0] * mean, band[1] * mean)
        bands = Bands(scaled(LOSS, state.loss), scaled(ENTROPY, state.entropy))
        seen = judge(logits, moment.params, new, bands)
        fits = seen.accepted
        where = lambda a, b: jnp.where(fits if a.ndim == 1 else fits[:, None], a, b)
        return jax.tree.map(where, seen.batch, real), seen.metrics

    def keep(state: SynthesisState, real: Batch, moment: Moment) -> Any:
        return real, {name: jnp.float32(0) for name in METRICS}

    def choose(
        state: SynthesisState, pool: Batch, moment: Moment
    ) -> tuple[Batch, None, Metrics, SynthesisState]:
        due = (state.calls % EVERY == EVERY - 1) & (moment.progress >= BEGIN)
        real = jax.tree.map(lambda x: x[:rows], pool)
        new, metrics = branch("synthesis", due, make, keep, state, real, moment)
        mixed = jax.tree.map(lambda x, y: x.at[:rows].set(y), pool, new)
        metrics = {**metrics, "taken/synthesis": due.astype(jnp.int32)}
        return mixed, None, metrics, state._replace(calls=state.calls + 1)

    def observe(
        state: SynthesisState, seen: Batch, losses: Array, stats: Stats, moment: Moment
    ) -> tuple[Metrics, SynthesisState]:
        known = (seen.targets != IGNORED).astype(jnp.float32)
        number = jnp.maximum(known.sum(), 1.0)
        new = losses.sum() / number, (stats.entropy * known).sum() / number
        first = state.calls <= 1
        mix = lambda old, x: jnp.where(first, x, MEMORY * old + (1 - MEMORY) * x)
        loss, entropy = map(mix, (state.loss, state.entropy), new)
        return {}, SynthesisState(state.calls, loss, entropy)

    return Selection(init, choose, observe)


@functools.lru_cache(maxsize=8)
def _selection(way: str, program: Any, batch: int) -> Selection:
    """One for all seeds, so that they share an executable."""
    return synthesis(way, program.forward, program.logits, batch)


def overrides(way: str, config: ExperimentConfig) -> dict[str, Any]:
    """What `train` is given beside the config."""
    return {"select": _selection(way, build(config), config.train.batch)}


def synthesis_jobs(
    options: Options, measure: Callable[[str], Measure] | None = None
) -> list[Job]:
    """Every arm with every seed; the queue can't run them, see `run_all`."""
    found = []
    for way in ARMS:
        for seed in range(1, options.seeds + 1):
            name = f"synthesis/{way}_s{seed}"
            config = configure(options, seed, way, CurriculumConfig())
            labels = {"arm": way, "track": TRACK, "recipe": RECIPE, "seed": seed}
            labels |= {"budget_units": BUDGET, "learning_rate": RATE}
            read = measure and measure(name)
            found.append(Job(name, config, tuple(labels.items()), read))
    return found


def run_all(jobs: list[Job], runs: Path, say: Callable[[str], None] = print) -> Results:
    """Records of the jobs that no other process is running, in order.

    Raises:
      UserError: for bad input, or a record of another config.
      StoppedError: after a signal; the same call goes on.
    """
    results: Results = {}
    for job in jobs:
        with claimed(runs / f"{job.name}.lock") as mine:
            if not mine:
                continue
            record = read_result(job, runs)
            if record is None:
                record = run_one(job, runs)
                say(f"{job.name}  {record['bits_per_byte']} bits per byte")
        results[job.name] = record
    return results


def run_one(job: Job, runs: Path) -> dict[str, Any]:
    """Trains with the arm's selection, measures, writes the record."""
    folder, labels = runs / job.name, dict(job.labels)
    record: dict[str, Any] = {"name": job.name, **labels, "diverged": False}
    own = overrides(labels["arm"], job.config)
    try:
        resume = (folder / "config.json").exists()
        with said_to(folder.with_suffix(".log")):
            result = train(job.config, folder, resume=resume, overrides=own)
        record |= {key: result.summary.get(key) for key in KEPT}
        record |= job.measure(result) if job.measure else {}
    except NonFiniteLossError as error:
        record |= {"bits_per_byte": None, "diverged": True, "why": str(error)}
    record |= {"config": to_dict(job.config), "config_hash": config_hash(job.config)}
    write_json(runs / f"{job.name}.json", record)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return record
