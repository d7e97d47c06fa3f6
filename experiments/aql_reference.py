"""The reference model of the RHO arm: a small one, trained on the cleaned text.

It may not be trained on the target sample (statistics, never gradients), so it learns
from what b3 keeps in mode `target`. What it costs is charged to the arm: its training,
and a forward pass over the windows that a run offers.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import arms, tracks
from experiments.aql_plan import RECIPES
from experiments.foundation import training_flops
from experiments.runner import Job, run_job
from uets_jax.build import build
from uets_jax.config import ExperimentConfig, window_length
from uets_jax.data.windows import sequential, window_count
from uets_jax.errors import UserError
from uets_jax.measure.flops import forward_flops
from uets_jax.report.files import replace_text
from uets_jax.selection.scores import row_mean
from uets_jax.step import evaluated

WIDTH = 32
BUDGET = 0.0625  # of U, by the steps of the full width
ROWS = 256


def reference(stores: Path, runs: Path) -> dict[str, Any]:
    """Writes `reference.npy` beside the stores, once; what it cost.

    Returns:
      training_flops: of the reference; flops_per_token: of its forward pass.

    Raises:
      UserError: if its training diverged.
    """
    path, said = stores / "reference.npy", stores / "reference.json"
    if not (path.exists() and said.exists()):
        config = _config(stores)
        kept: list[Any] = []
        job = Job("reference", config, measure=lambda r: kept.append(r) or {})
        record = run_job(job, runs)
        if not kept:
            raise UserError(f"reference: {record['why']}; see {runs}/reference.log")
        params = evaluated(build(kept[0].config), kept[0].state)
        np.save(path, _losses(kept[0].config, params, stores))
        cost = {
            "training_flops": training_flops(record),
            "flops_per_token": forward_flops(kept[0].config.model, arms.LENGTH),
            "bits_per_byte": record["bits_per_byte"],
        }
        replace_text(said, json.dumps(cost) + "\n")
    return json.loads(said.read_text("utf-8"))


def _config(stores: Path) -> ExperimentConfig:
    source = tracks.store(stores, "b3.target.0.15", "a")
    settings = {**RECIPES["b2"], "learning_rate": 0.01}
    config = arms.config("b2", source, settings, 1, BUDGET * arms.UNIT, 100)
    small = {"width": WIDTH, "heads": 1, "kv_heads": 1, "hidden": 4 * WIDTH}
    model = dataclasses.replace(config.model, **small)
    return dataclasses.replace(config, name="reference", model=model)


def _losses(config: ExperimentConfig, params: Any, stores: Path) -> np.ndarray:
    """f32 [windows]: nats per token of every window of the pool."""
    store, length = tracks.opened(stores, "mixture"), window_length(config)
    forward, tokens = build(config).forward, store.tokens("train")
    score = jax.jit(lambda p, b: row_mean(forward(p, b)[0], b.targets))
    batches = sequential(tokens, store.tokenizer.eot, length, ROWS)
    found = [np.asarray(score(params, batch)) for batch in batches]
    return np.concatenate(found)[: window_count(len(tokens), length)]
