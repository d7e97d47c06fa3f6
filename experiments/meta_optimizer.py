"""The learned optimizer: meta-training its gate, and comparing it with tuned rules.

    python -m experiments.meta_optimizer --meta-train --minutes 30 --ship
    python -m experiments.meta_optimizer --compare --workers 2
    python -m experiments.meta_optimizer --compare --only overhead
    python -m experiments.meta_optimizer --ablation --workers 2
    python -m experiments.meta_optimizer --hybrid --workers 2
    python -m experiments.meta_optimizer --small --minutes 3

Budgets of meta-training: 30, 60 or 120 minutes on two cores, longer where there is a
GPU; the same command goes on with a run that was stopped. `--ship` writes the weights
into the package if a stage beats its start by two standard errors on held-out
families, at the learning rate that each of these has. Tables of the comparison:
compare, robustness, untuned, overhead, frozen; runs are a queue and resumable.
`--ablation` comes after it: short meta-trainings, each with a part left out;
`--hybrid` likewise: what holds between two decisions, and updates left out. Their data
are WikiText-2 and the encyclopedic domain of the multi-domain corpus, which
meta-training doesn't read. `--small` needs none: rules by hand, the shipped gate and,
learned within the minutes each, a network and an LSTM, on the tasks of meta-training.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import (
    meta_gate,
    optimizer_ablation,
    optimizer_compare,
    optimizer_small,
)
from experiments.meta_stages import VARIANTS
from experiments.optimizer_grids import RULES
from experiments.optimizer_plan import TASKS, TRIALS
from experiments.script import command, ended
from uets_jax.errors import EXIT_OK, UserError

NAME = "meta_optimizer"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    given = parser().parse_args(words)
    return ended(NAME, lambda: run(given, words))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(prog=f"python -m experiments.{NAME}")
    flag = found.add_argument
    flag("--meta-train", action="store_true", help="learn the gate")
    flag("--minutes", type=float, default=30.0, help="of wall clock")
    flag("--updates", type=int, default=0, help="0: as many as the minutes allow")
    flag("--variant", choices=VARIANTS, default="gate", help="what is learned")
    flag("--seed", type=int, default=0)
    flag("--validate", type=int, default=200, help="updates between validations")
    flag("--ship", action="store_true", help="write the weights into the package")
    flag("--compare", action="store_true", help="against tuned rules")
    flag("--ablation", action="store_true", help="what each part is worth")
    flag("--hybrid", action="store_true", help="when the mixture applies")
    flag("--small", action="store_true", help="other learned rules, on small tasks")
    flag("--only", choices=optimizer_compare.TABLES, action="append", help="one table")
    flag("--task", choices=[t.name for t in TASKS], action="append", help="one task")
    flag("--rule", choices=RULES, action="append", help="one rule")
    flag("--known", action="store_true", help="don't repeat runs on record")
    flag("--trials", type=int, default=TRIALS, help="of each rule and task")
    flag("--scale", type=float, default=1.0, help="of all numbers of steps")
    flag("--workers", type=int, default=1, help="processes, a core each")
    flag("--runs", type=Path, default=Path("runs/meta"))
    flag("--stores", type=Path, default=Path("runs/baselines/data"))
    flag("--out", type=Path, default=Path("results"))
    flag("--data-dir", type=Path, default=Path("../shared/data"))
    flag("--worker", type=int, default=-1, help=argparse.SUPPRESS)
    return found


def run(given: argparse.Namespace, words: Sequence[str]) -> int:
    """What was asked for, meta-training first."""
    steps = ("meta_train", "compare", "ablation", "hybrid", "small")
    if not any(getattr(given, step) for step in steps):
        names = [f"--{step.replace('_', '-')}" for step in steps]
        raise UserError(f"say what: {', '.join(names[:-1])} or {names[-1]}")
    if given.trials < 1 or given.workers < 1 or not given.scale > 0:
        raise UserError("--trials, --workers and --scale must be above 0")
    said = command(NAME, words)
    if given.meta_train and given.worker < 0:
        meta_gate.run(given, said)
    if given.compare:
        optimizer_compare.run(given, words, said)
    if given.ablation:
        optimizer_ablation.run(given, words, said)
    if given.hybrid:
        optimizer_ablation.run(given, words, said, "hybrid")
    if given.small and given.worker < 0:
        optimizer_small.run(given, said)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
