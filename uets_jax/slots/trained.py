"""What a run of the system ends with: a model to use, a state, a report."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from uets_jax.config import ExperimentConfig
from uets_jax.data.tokenizer import Tokenizer
from uets_jax.measure.ahead import comparable, setting_of
from uets_jax.measure.baseline import read_baseline
from uets_jax.measure.efficiency import EfficiencyMonitor
from uets_jax.models.presets import read_config
from uets_jax.report.metrics import read_metrics
from uets_jax.step import Program
from uets_jax.train.summary import completed
from uets_jax.types import Params, TrainState


class TrainedModel(NamedTuple):
    """The trained architecture: its functions and what they are applied to.

    config:  of the model as it ended; `program.logits`, `program.forward` and the
      others take `params`.
    """

    config: ExperimentConfig
    program: Program
    tokenizer: Tokenizer
    params: Params

    def logits(self, tokens: Any) -> Float[Array, "b l v"]:
        """Of each next token, for token ids [B, L]."""
        return jax.jit(self.program.logits)(self.params, np.asarray(tokens, np.int32))

    def generate(
        self,
        prompt: str = "",
        tokens: int = 120,
        temperature: float = 0.8,
        top_k: int = 50,
        seed: int = 0,
    ) -> str:
        """`prompt` and the text that the model puts after it."""
        how = {"temperature": temperature, "top_k": top_k, "seed": seed}
        model = (self.program, self.config, self.tokenizer, self.params)
        return completed(*model, prompt, tokens=tokens, **how)


class Report(NamedTuple):
    """The page of a finished run, the content of its summary.json, and the names of
    its own parts.
    """

    path: Path
    summary: dict[str, Any]
    own: tuple[str, ...] = ()

    def monitor(self, threshold: float | None = 0.3) -> EfficiencyMonitor:
        """The monitor that has seen the whole run; see there."""
        told, folder, baseline = self.summary.get("baseline"), self.path.parent, None
        if told:
            names = ("corpus_sha256", "tokenizer_sha256", "machine")
            corpus, tokenizer, machine = (self.summary[name] for name in names)
            config = read_config(folder / "config.json")
            own = setting_of(config, corpus, tokenizer, machine, self.own)
            baseline, _ = comparable(read_baseline(told["file"]), own)
        monitor = EfficiencyMonitor(baseline, threshold)
        for record in read_metrics(folder / "metrics.jsonl"):
            monitor.observe(record)
        return monitor


class Trained(NamedTuple):
    """What a run ends with."""

    model: TrainedModel
    state: TrainState
    report: Report
