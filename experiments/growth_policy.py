"""A policy that learns when to grow, and whether it beats a schedule.

    python -m experiments.growth_policy --workers 2              all, about an hour
    python -m experiments.growth_policy --only rollouts          what it learns from
    python -m experiments.growth_policy --only train             writes the policy
    python -m experiments.growth_policy --only verify --seeds 3  the verdict
    python -m experiments.growth_policy --quick                  all in miniature
    python -m experiments.growth_policy --field depth            layers, not width

`growth.policy_training` tells how well the surrogate fits and what each way to learn
makes of it; `growth.policy` is the verdict on fresh seeds, a longer run, another track.
`--quick` and `--field depth` leave the shipped policy as it is, and judge that one.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import arms, tracks
from experiments.growth_policy_ladder import LADDERS, RATE, RECIPE
from experiments.growth_policy_plan import (
    DEAR,
    PRICES,
    SHARES,
    STEPS,
    Case,
    Options,
    PolicyPlan,
    cases,
)
from experiments.growth_policy_score import best_schedule, case_rows, measure_with
from experiments.growth_policy_train import QUICK, Effort, trained
from experiments.records import write_record
from experiments.runner import Results, pin, run_queue, serve
from experiments.script import check_queue, command, ended, queue_parser
from uets_jax.errors import EXIT_OK
from uets_jax.growth.learned import SHIPPED, load_policy, save_policy

NAME = "growth_policy"
PHASES = ("rollouts", "train", "verify")
QUICK_UNIT = arms.UNIT / 12
NOTES = {
    "policy": (
        "b2 at one learning rate, over three sizes of one field. reward: nats of loss "
        "taken off log(vocab), less lambda times FLOPs over those of as many steps at "
        "the last size; higher is better. best fixed: the schedule of the highest "
        "reward among the rollouts that the policy was learned from (as long, one seed "
        "each), run again here; difference: arm less best fixed, seed by seed; _low, "
        "_high: 95 % t-interval. horizon: steps of 1,024 tokens. first_growth, "
        "last_growth: shares of the steps, where it grew. loss: nats per token on "
        "valid-B. What it cost to learn the policy is in growth.policy_training, not "
        "in these rows."
    ),
    "policy_training": (
        "value: mean reward / (1 + lambda) over random lambda, lengths and ladders in "
        "the surrogate, on fresh settings, the same for all. The law and its residuals "
        "are in `config`; residual: of single steps, noise included; missed: root mean "
        "square over runs of the mean residual."
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    given = parser().parse_args(words)
    return ended(NAME, lambda: run(given, words))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = queue_parser(NAME, "runs/growth_policy")
    found.add_argument("--only", choices=PHASES, help="one phase")
    found.add_argument(
        "--field", choices=[*LADDERS], default="width", help="that grows"
    )
    found.add_argument("--stores", type=Path, default=Path("runs/baselines/data"))
    found.add_argument("--quick", action="store_true", help="in miniature")
    return found


def run(given: argparse.Namespace, words: Sequence[str]) -> int:
    """Data, then the phases that are asked for."""
    check_queue(given)
    if given.quick:
        given.unit, given.seeds, given.runs = QUICK_UNIT, 1, given.runs / "quick"
        given.out = given.runs / "results"
    steps = max(20, round(STEPS * given.unit / arms.UNIT))
    options = Options(given.stores, given.field, given.seeds, steps)
    if given.quick:
        options = dataclasses.replace(options, random=2, static_seeds=1, tokens=8192)
    phases = (given.only,) if given.only else PHASES
    if given.worker < 0:
        tracks.clean(given.data_dir, given.stores)
        if "verify" in phases:
            tracks.mixture(given.data_dir, given.stores)
    for phase in phases:
        _phase(phase, given, options, words)
    return EXIT_OK


def _phase(
    phase: str, given: argparse.Namespace, options: Options, words: Sequence[str]
) -> None:
    if phase == "verify":
        options = dataclasses.replace(options, weights=load_policy().weights)
    plan = PolicyPlan(options, phase == "verify", measure_with(given.runs))
    if given.worker >= 0:
        pin(given.worker)
        run_queue(plan, given.runs)
        return
    if given.workers > 1 and phase != "train":
        serve(given.workers, f"experiments.{NAME}", [*words, "--only", phase])
    results = run_queue(plan, given.runs)
    if phase == "train":
        _train(given, options, results, words)
    if phase == "verify":
        rows = verdict_rows(options, plan, results)
        _write("policy", rows, given, words, {})


def _train(
    given: argparse.Namespace,
    options: Options,
    results: Results,
    words: Sequence[str],
) -> None:
    effort = QUICK if given.quick else Effort()
    said = command(NAME, words)
    found = trained([*results.values()], options.ladder, said, effort)
    own = given.quick or options.field != Options.field
    place = given.runs / f"policy_{options.field}.json" if own else SHIPPED
    learned = dict(found.policy.config)
    cost = {"flops": found.policy.flops, "core_seconds": found.policy.core_seconds}
    more = {"learned": learned, "cost": cost, "weights": [*found.policy.weights]}
    # the record first: the shipped file is part of the checkout, whose commit it names
    _write("policy_training", found.rows, given, words, more)
    save_policy(place, found.policy)
    print(place)


def verdict_rows(
    options: Options, plan: PolicyPlan, results: Results
) -> list[dict[str, Any]]:
    """`growth.policy`: every case at every price, and the dear one on the first."""
    jobs = plan(results)
    rollouts = [results[job.name] for job in jobs if job.name.startswith("rollout/")]
    runs = [results[job.name] for job in jobs if job.name.startswith("verify/")]
    own = lambda case: [r for r in runs if Case(r["track"], r["horizon"]) == case]
    rows = []
    for case in cases(options):
        for price in PRICES:
            schedule = best_schedule(rollouts, price, options.steps)
            rows += case_rows(own(case), schedule, price)
    never = f"static {options.ladder.sizes[0]}"
    first = [r for r in own(cases(options)[0]) if r["arm"] in ("learned", never)]
    return rows + case_rows(first, "", DEAR)


def _write(
    name: str,
    rows: list[dict[str, Any]],
    given: argparse.Namespace,
    words: Sequence[str],
    more: dict[str, Any],
) -> None:
    config = {
        "recipe": RECIPE,
        "learning_rate": RATE,
        "ladder": dataclasses.asdict(LADDERS[given.field]),
        "latest": [*SHARES],
        "steps": STEPS,
        "unit_flops": given.unit,
        "seeds": given.seeds,
    }
    said = command(NAME, words)
    place = f"growth.{name}"
    place += "" if given.field == Options.field else f"_{given.field}"
    print(write_record(place, rows, said, config | more, NOTES[name], given.out))


if __name__ == "__main__":
    sys.exit(main())
