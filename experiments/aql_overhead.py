"""What choosing costs: `python -m experiments.aql_overhead --help`.

The step of a recipe with its slots empty against the same step that chooses, FLOPs by
the ledger and seconds side by side: AQL v2, each part of it left out, and the costly
ways of comparison. Then uncertainty alone: Laplace off the training forward against
MC-dropout. Run it on a quiet machine; nothing else makes the seconds comparable.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import arms, tracks
from experiments.records import write_record
from experiments.uncertainty_cost import uncertainty_rows
from uets_jax.aql.make import PASSES
from uets_jax.config import ExperimentConfig, SelectConfig, to_dict
from uets_jax.errors import ENDS, EXIT_OK, UserError, exit_code
from uets_jax.measure.branches import Count
from uets_jax.train.executable import Executable, executable
from uets_jax.train.mesh import put_batch
from uets_jax.train.session import Session, open_session
from uets_jax.types import TrainState

Row = dict[str, Any]
SETTINGS = {"learning_rate": 0.01, "weight_decay": 0.0, "schedule": "wsd"}
SETTINGS |= {"warmup": 0.02, "adam_ratio": 1.0}  # none of them changes a cost
DROPOUT = 0.1
WARM_UP = 5  # steps of each side before a pair is timed
POOLS = 16  # different ones, cut beforehand; the steps go round them
LEAST_PAIRS = 5  # whatever the limit
RESAMPLES = 10_000
SAID = (
    "Step with selection against the same step with empty slots (and, for mc_dropout, "
    "the same dropout): interleaved blocks of steps, seconds_overhead the median of "
    "the paired ratios less 1, _ci its 95 % bootstrap interval, mean_seconds_overhead "
    "that of the sums. A step includes the transfer of its pool; windows_seconds is "
    "what cutting that pool takes on the host, which a run does beside the step; "
    "seconds_overhead_with_windows adds it to both. FLOPs by the ledger, integer "
    "operations included, branches as often as they were taken while timed; by_product "
    "is what the forward pass is asked for besides the loss. "
    f"mc_dropout: {PASSES} passes over all candidates. Rows 'alone': per row of a "
    "batch; laplace reads by-products of the training forward and keeps its posterior "
    "up, 'with a pass' is a forward pass for a row that is not trained on."
)


class Arm(NamedTuple):
    """Changes to `SelectConfig`, and the dropout of the model on both sides."""

    changes: dict[str, Any]
    dropout: float = 0.0


def measured_arms(target: str) -> dict[str, Arm]:
    """By name; those of mode `target` where there is a sample."""
    found = {"aql_v2": Arm({})}
    for part in ("uncertainty", "policy", "novelty", "natural"):
        found[f"aql_v2 without {part}"] = Arm({part: False})
    none: dict[str, Any] = {"buckets": False, "policy": False}
    found["aql_v2 without buckets and policy"] = Arm(none)
    found["aql_v2, 1 window per piece"] = Arm({"run": 1})
    if target:
        given = {"mode": "target", "target": target}
        found["aql_v2 target"] = Arm(given)
        found["aql_v2 target without lexical"] = Arm({**given, "lexical": False})
    found["loss"] = Arm({"method": "loss"})
    found["mc_dropout"] = Arm({"method": "mc_dropout"}, DROPOUT)
    return found


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line says."""

    source: str
    target: str
    recipes: tuple[tuple[str, int], ...]
    depth: int
    steps: int
    block: int
    limit: float
    only: tuple[str, ...] = ()


def without_choice(
    options: Options, recipe: str, batch: int, dropout: float
) -> ExperimentConfig:
    """The run whose slots are empty."""
    settings = {**SETTINGS, "batch": batch}
    config = arms.config(recipe, options.source, settings, options.depth, arms.UNIT)
    model = dataclasses.replace(config.model, dropout=dropout)
    return dataclasses.replace(config, model=model)


def with_choice(config: ExperimentConfig, changes: dict[str, Any]) -> ExperimentConfig:
    """The same run, choosing."""
    select = SelectConfig(**{"method": "aql", **changes})
    return dataclasses.replace(config, select=select)


class Side:
    """One of the two steps, its state and what it has met so far."""

    def __init__(self, config: ExperimentConfig) -> None:
        self.session: Session = open_session(config)
        s = self.session
        self.made: Executable = executable(s.program, s.mesh, s.config, s.assets)
        self._state: TrainState = s.initial_state()
        self._pools = [s.windows[i] for i in range(POOLS)]
        self._calls, self._told = 0, []
        self.run(WARM_UP)
        self._calls, self._told = 0, []

    def run(self, steps: int) -> float:
        """Seconds per step."""
        start, metrics = time.perf_counter(), {}
        for i in range(steps):
            pool = put_batch(self._pools[(self._calls + i) % POOLS], self.session.mesh)
            self._state, metrics = self.made.call(
                self._state, pool, self.session.assets
            )
            self._told.append({k: v for k, v in metrics.items() if "/" in k})
        jax.block_until_ready((self._state, metrics))
        self._calls += steps
        return (time.perf_counter() - start) / steps

    def flops(self) -> dict[str, float]:
        """Per step by category, with its branches as often as they were taken."""
        taken: dict[str, int] = {}
        for told in self._told:
            for name, value in told.items():
                name = name.removeprefix("taken/")
                taken[name] = taken.get(name, 0) + int(value)
        return step_flops(self.made.count, taken, self._calls)

    def windows_seconds(self) -> float:
        """Median of what cutting one pool out of the text takes."""
        found = []
        for i in range(POOLS):
            start = time.perf_counter()
            _ = self.session.windows[i]
            found.append(time.perf_counter() - start)
        return float(np.median(found))


def step_flops(count: Count, taken: dict[str, int], calls: int) -> dict[str, float]:
    """FLOPs of one of so many calls, by category."""
    costs = count.total(taken, calls).items()
    return {category: cost.total / calls for category, cost in costs}


def paired(sides: Sequence[Side], options: Options) -> np.ndarray:
    """[pairs, 2] seconds per step, in blocks that take turns and turn their order."""
    pairs, begun = [], time.perf_counter()
    for number in range(max(options.steps // options.block, 1)):
        if number >= LEAST_PAIRS and time.perf_counter() - begun > options.limit:
            break
        order = (0, 1) if number % 2 else (1, 0)
        seconds = {i: sides[i].run(options.block) for i in order}
        pairs.append([seconds[0], seconds[1]])
    return np.asarray(pairs)


def overhead(seconds: np.ndarray) -> dict[str, float]:
    """The median of paired ratios less 1, its interval, and the ratio of the sums."""
    ratios = seconds[:, 1] / seconds[:, 0] - 1
    drawn = np.random.default_rng(0).choice(ratios, (RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    sums = seconds.sum(0)
    return {
        "seconds_overhead": float(np.median(ratios)),
        "seconds_overhead_ci_low": float(low),
        "seconds_overhead_ci_high": float(high),
        "mean_seconds_overhead": float(sums[1] / sums[0] - 1),
    }


def row(sides: Sequence[Side], options: Options) -> Row:
    """All figures of one arm: empty slots first, then the one that chooses."""
    seconds = paired(sides, options)
    bare, full = (side.flops() for side in sides)
    cutting = [side.windows_seconds() for side in sides]
    whole = seconds + np.asarray(cutting)
    select = sides[1].session.config.select
    return {
        "mode": select.mode,
        "candidates": select.candidates,
        "flops_overhead": sum(full.values()) / sum(bare.values()) - 1,
        **overhead(seconds),
        "seconds_overhead_with_windows": overhead(whole)["seconds_overhead"],
        "step_flops": sum(full.values()),
        "bare_step_flops": sum(bare.values()),
        "by_product_flops": full["forward_backward"] - bare["forward_backward"],
        "scoring_flops": full.get("scoring", 0.0),
        "statistics_flops": full.get("statistics", 0.0),
        "step_seconds": float(np.median(seconds[:, 1])),
        "bare_step_seconds": float(np.median(seconds[:, 0])),
        "windows_seconds": cutting[1],
        "bare_windows_seconds": cutting[0],
        "pairs": len(seconds),
        "block_steps": options.block,
    }


def rows(options: Options, say: Callable[[str], None] = print) -> tuple[list[Row], Row]:
    """Those of all recipes and arms, and the configs that they were taken of.

    Raises:
      UserError: for an arm that is not known, or data that can't be read.
    """
    wanted, found, configs = _wanted(options), [], {}
    for recipe, batch in options.recipes:
        named = {"recipe": recipe, "batch": batch}
        for name in wanted:
            if name == ALONE:
                bare = without_choice(options, recipe, batch, DROPOUT)
                new = uncertainty_rows(open_session(bare))
            else:
                arm = measured_arms(options.target)[name]
                bare = without_choice(options, recipe, batch, arm.dropout)
                chooses = with_choice(bare, arm.changes)
                new = [{"arm": name, **row([Side(bare), Side(chooses)], options)}]
                configs[f"{recipe} {name}"] = to_dict(chooses)["select"]
            for one in new:
                found.append({**named, **one})
                say(f"{recipe} {batch}: {_shown(one)}")
    return found, configs


ALONE = "alone"  # uncertainty, without a step


def _wanted(options: Options) -> list[str]:
    known = [*measured_arms(options.target), ALONE]
    if missing := [name for name in options.only if name not in known]:
        raise UserError(f"--only: {missing[0]!r}: one of {'; '.join(known)}")
    return [name for name in known if not options.only or name in options.only]


def _shown(one: Row) -> str:
    keys = ("flops_overhead", "seconds_overhead", "row_flops", "row_seconds")
    return " ".join([one["arm"], *(f"{k} {one[k]:.5g}" for k in keys if k in one)])


def _recipe(words: str) -> tuple[str, int]:
    """`b2:8` as (b2, 8)."""
    name, _, batch = words.partition(":")
    if name not in ("b1", "b2", "b2m") or not batch.isdecimal():
        raise argparse.ArgumentTypeError(f"{words!r}: write b2:8")
    return name, int(batch)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures all arms; writes `aql.overhead`."""
    parser = argparse.ArgumentParser(prog="python -m experiments.aql_overhead")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--runs", type=Path, default=Path("runs/baselines"))
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--source", default="", help="default: the mixture of --runs")
    parser.add_argument("--target", default="", help="sample, for mode target")
    parser.add_argument(
        "--recipes", type=_recipe, nargs="+", default=(("b2", 8), ("b2m", 32))
    )
    parser.add_argument("--depth", type=int, default=1)
    parser.add_argument("--steps", type=int, default=300, help="of each side")
    parser.add_argument("--block", type=int, default=2, help="steps timed together")
    parser.add_argument("--limit", type=float, default=240, help="seconds per arm")
    parser.add_argument("--only", nargs="+", default=(), metavar="ARM")
    words = list(sys.argv[1:] if argv is None else argv)
    given = vars(parser.parse_args(words))
    out, runs, data = (given.pop(name) for name in ("out", "runs", "data_dir"))
    try:
        if not given["source"]:
            tracks.mixture(data, runs / "data")
            given["source"] = tracks.store(runs / "data", "mixture", "a")
            given["target"] = f"jsonl:{runs}/data/pool/sample.jsonl"
        given |= {name: tuple(given[name]) for name in ("recipes", "only")}
        found, configs = rows(Options(**given))
        command = " ".join(["python -m experiments.aql_overhead", *words])
        print(write_record("aql.overhead", found, command, configs, SAID, out=out))
    except ENDS as error:
        print(f"aql_overhead: error: {error}", file=sys.stderr)
        return exit_code(error)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
