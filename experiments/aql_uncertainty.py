"""Quality of uncertainty: `python -m experiments.aql_uncertainty --help`.

Trains small models on the noisy pool of the track "mixture" (one plain, one with
dropout, an ensemble of other seeds) and writes `aql.uncertainty`: a row per score of a
method, with its rank correlation with the costly references, how well it tells noise
and unseen domains from held-out target text, the calibration of the method's
predictive, and what it costs. No label of the pool is read.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from experiments import arms, tracks, uncertainty_methods, uncertainty_texts
from experiments.records import write_record
from experiments.uncertainty_methods import Method
from experiments.uncertainty_rows import uncertainty_rows
from uets_jax.config import ExperimentConfig, config_hash, to_dict, window_length
from uets_jax.errors import ENDS, EXIT_OK, UserError, exit_code
from uets_jax.models.transformer import make_model
from uets_jax.train.loop import train
from uets_jax.train.session import Session, open_session
from uets_jax.types import Params

RECIPE = {
    "learning_rate": 0.005,
    "batch": 8,
    "weight_decay": 0.0,
    "schedule": "wsd",
    "warmup": 0.02,
    "adam_ratio": 1.0,
}


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line says."""

    out: Path
    runs: Path
    stores: Path
    data_dir: Path
    flops: float
    steps: int
    dropout: float
    passes: int
    members: int
    fit: int
    windows: int
    rows: int


def configs(options: Options) -> dict[str, ExperimentConfig]:
    """The runs: `plain`, `dropout`, and the ensemble's, all of other seeds."""
    flops = options.flops
    if options.steps:
        flops = options.steps * arms.step_flops("b2", 1, RECIPE["batch"])
    source = tracks.store(options.stores, "mixture", "a")
    make = lambda seed: arms.config("b2", source, RECIPE, 1, flops, seed)
    model = dataclasses.replace(make(0).model, dropout=options.dropout)
    found = {"plain": make(0), "dropout": dataclasses.replace(make(0), model=model)}
    return found | {f"member{i}": make(i) for i in range(1, options.members + 1)}


def trained(config: ExperimentConfig, runs: Path, name: str) -> Params:
    """Parameters of a run; one that is there already is not run again."""
    folder = runs / f"{name}.{config_hash(config)[:8]}"
    there = (folder / "config.json").exists()
    return train(config, folder, resume=there).state.params


def methods(
    options: Options, session: Session, params: dict[str, Params]
) -> list[Method]:
    """All ways to score, ready to use.

    Args:
      session: of the plain run; the posterior is fitted to its first batches.
      params: of the runs in `configs`.
    """
    config = session.config.model
    model, width, vocab = make_model(config), config.width, config.vocab
    noisy = make_model(dataclasses.replace(config, dropout=options.dropout))
    batches = [session.windows[i] for i in range(options.fit)]
    plain = (model, params["plain"])
    members = [p for name, p in params.items() if name.startswith("member")]
    return [
        *uncertainty_methods.softmax(*plain),
        *uncertainty_methods.last_layer(*plain, batches, width, vocab),
        *uncertainty_methods.embedded(*plain, batches, width, vocab),
        *uncertainty_methods.dropout(noisy, params["dropout"], options.passes),
        *uncertainty_methods.several(model, members),
    ]


def measure(options: Options) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows, and the configs that were run."""
    tracks.mixture(options.data_dir, options.stores)
    plan = configs(options)
    params = {name: trained(c, options.runs, name) for name, c in plan.items()}
    session = open_session(plan["plain"])
    texts = uncertainty_texts.texts(options.stores, options.data_dir)
    cut = lambda documents: uncertainty_texts.windows(
        documents,
        session.store.tokenizer,
        window_length(session.config),
        options.windows,
    )
    windows = {kind: cut(documents) for kind, documents in texts.items()}
    ways = methods(options, session, params)
    plain = jax.jit(make_model(session.config.model).forward)
    forward = lambda batch: plain(params["plain"], batch)[1]
    rows = uncertainty_rows(ways, windows, forward, options.rows)
    told = {name: to_dict(config) for name, config in plan.items()}
    return rows, told


NOTE = (
    "{windows} windows of each kind at most; means per window of the scores of its "
    "tokens. The ensemble ({members} members) and MC-dropout ({passes} passes at "
    "{dropout:g}) share no model with the rest. Laplace: factors of {fit} training "
    "batches after training, prior precision by the evidence; that fit is not in the "
    "cost, which is of scoring. spearman: with the references' mutual information. "
    "seconds: per 1,000 windows; extra: beyond a forward pass that is made anyhow."
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(prog="python -m experiments.aql_uncertainty")
    flag = found.add_argument
    flag("--out", type=Path, default=Path("results"))
    flag("--runs", type=Path, default=Path("runs/aql_uncertainty"))
    flag("--stores", type=Path, default=Path("runs/baselines/data"), help="of tracks")
    flag("--data-dir", type=Path, default=Path("../shared/data"))
    flag("--flops", type=float, default=arms.UNIT / 8, help="of each training run")
    flag("--steps", type=int, default=0, help="of each run; 0: what --flops pays for")
    flag("--dropout", type=float, default=0.1)
    flag("--passes", type=int, default=10, help="of MC-dropout")
    flag("--members", type=int, default=4, help="of the ensemble")
    flag("--fit", type=int, default=200, help="batches that the posterior is fitted to")
    flag("--windows", type=int, default=256, help="of each kind of text")
    flag("--rows", type=int, default=32, help="windows that are scored at once")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    given = vars(parser().parse_args(words))
    try:
        for name in ("passes", "members", "fit", "windows", "rows"):
            if given[name] < 1:
                raise UserError(f"--{name}: must be at least 1, got {given[name]}")
        rows, config = measure(Options(**given))
        command = " ".join(["python -m experiments.aql_uncertainty", *words])
        note = NOTE.format(**given)
        path = write_record(
            "aql.uncertainty", rows, command, config, note, out=given["out"]
        )
    except ENDS as error:
        print(f"aql_uncertainty: error: {error}", file=sys.stderr)
        return exit_code(error)
    print(path)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
