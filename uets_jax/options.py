"""What can be given to each command: dataclasses whose fields are its flags.

A field without a default is a positional word; the docstrings become the help.
"""

import dataclasses
from typing import Literal

from uets_jax.config import DataConfig, ExperimentConfig


@dataclasses.dataclass(frozen=True)
class Train(ExperimentConfig):
    """Train a model. Recipe, then preset and size, then single flags win."""

    recipe: str = ""
    """Name of a recipe in experiments/recipes, or a JSON file (also config.json)."""
    out: str = ""
    """Directory of the run; empty: runs/NAME."""
    resume: str = ""
    """Directory of a run to continue, with its own configuration."""
    allow: str = ""
    """What a resume may change, with commas: fields (train.steps), groups (data),
    overrides."""
    profile: int = 0
    """Steps to trace into OUT/profile, for Perfetto and TensorBoard."""
    coordinator: str = ""
    """Several processes: HOST:PORT of process 0, or auto on a cluster."""
    processes: int = 0
    """How many there are."""
    process: int = -1
    """Number of this one, from 0."""
    print_config: bool = False
    """Print the configuration as JSON and stop; a recipe of its own."""
    dry_run: bool = False
    """Print what would run, and its cost, and stop."""


@dataclasses.dataclass(frozen=True)
class Cost(ExperimentConfig):
    """Print what a training run would cost, before it; flags as `uets train`."""

    recipe: str = ""
    """Name of a recipe in experiments/recipes, or a JSON file (also config.json)."""
    device: str = ""
    """Names in the table of devices, with commas between them, or all; empty: this
    machine's own, or cpu."""
    mfu: float = 0.0
    """Share of the peak FLOP/s that the matmuls reach; 0: as the table has it."""
    devices: str = ""
    """Table of your own devices, a JSON file as uets_jax/measure/devices.json."""
    compile: bool = False
    """Compile the step here, for its exact memory."""
    json: bool = False
    """Print JSON, not a table."""


@dataclasses.dataclass(frozen=True)
class Pilot(ExperimentConfig):
    """Try selection, growth, learned rule and start on a text, in short runs."""

    source: str = dataclasses.field(kw_only=True)
    """As --data.source of `uets train`, or a path of text or tokens."""
    recipe: str = ""
    """Name of a recipe in experiments/recipes, or a JSON file (also config.json)."""
    out: str = ""
    """Directory of the pilot; empty: runs/NAME-pilot. Runs on record there are not made
    again."""
    flops: float = 0.0
    """FLOPs of training, of the full run; 0: what --train.steps take."""
    minutes: float = 0.0
    """Instead of FLOPs: minutes of training on this machine, of the full run."""
    share: float = 0.01
    """Of the full run's FLOPs that the largest runs of each arm get."""
    seeds: int = 3
    """Of each arm and budget, paired; 2 or more."""
    dry_run: bool = False
    """Print which runs would be made, and their cost, and stop."""


@dataclasses.dataclass(frozen=True)
class Eval:
    """Measure the loss of a trained model, or how it solves tasks; prints JSON."""

    dir: str
    """Directory of the run."""
    source: str = ""
    """Text to read, as --data.source of `uets train`; empty: that of the run."""
    split: Literal["valid", "train"] = "valid"
    """Which part of it."""
    tokens: int = 0
    """Tokens read; 0: all of them."""
    tasks: str = ""
    """Instead of text, JSONL files of tasks, with commas between them. Forms of a line:
    good, bad; context, continuation; context_options, continuation, gold; query,
    choices, gold."""
    limit: int = 0
    """Items of each group of a task (uid, phenomenon), evenly spaced; 0: all."""


@dataclasses.dataclass(frozen=True)
class Report:
    """Write one page about one run or several, as HTML and as Markdown."""

    dirs: tuple[str, ...]
    """Directories of the runs."""
    out: str = ""
    """File; empty: report.html, in the directory of the run if it is one. The same in
    Markdown is written beside it."""
    base: str = ""
    """Run that ratios are taken to: its directory or name; empty: the first."""


@dataclasses.dataclass(frozen=True)
class Baseline:
    """Write a finished run as a baseline, for --train.baseline of `uets train`."""

    dir: str
    """Directory of the run; its schedule wsd or constant."""
    out: str = ""
    """File; empty: baseline.json in the directory of the run."""
    name: str = ""
    """What the baseline is called; empty: as the run."""


@dataclasses.dataclass(frozen=True)
class Generate:
    """Print text that continues a prompt."""

    dir: str
    """Directory of the run."""
    prompt: str = ""
    """Text to continue."""
    tokens: int = 120
    """Tokens to add."""
    temperature: float = 0.8
    """0: always the likeliest token."""
    top_k: int = 50
    """Draw from the k likeliest tokens; 0: from all."""
    seed: int = 0
    """Of the draws."""


@dataclasses.dataclass(frozen=True)
class Tokenize:
    """Write a corpus as tokens, to be read as `--data.source tokens:DIR`."""

    source: str
    """As --data.source of `uets train`."""
    dir: str
    """Directory to write."""
    tokenizer: str = DataConfig.tokenizer
    """As --data.tokenizer of `uets train`."""
    valid_source: str = DataConfig.valid_source
    """Own source of validation text; empty: documents held out of the source."""
    valid_fraction: float = DataConfig.valid_fraction
    """Share of the bytes held out, by whole documents."""
    on_error: Literal["error", "skip"] = "error"
    """A document that can't be used: stop with one line, or count and skip it."""
