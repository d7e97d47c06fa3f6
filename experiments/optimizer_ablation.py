"""What each part of the learned optimizer is worth: short meta-trainings, then runs.

Every arm gets as many updates (`--updates`) on the same few families, in the stages of
its variant: in equal time one arm would compile while another learns. Its weights train
the language model `narrow` at equal steps, with the tuned rate, ratio and decay of the
rule that they depart from and the memories that they were learned with: a gate
multiplies those.
"""

import argparse
import functools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import meta_gate, tracks
from experiments.meta_stages import VARIANTS
from experiments.optimizer_plan import TASKS, Options, configure, runs_of
from experiments.optimizer_rows import bits
from experiments.records import read_record, write_record
from experiments.runner import Job, Results, claimed, pin, run_queue, serve
from uets_jax.config import ExperimentConfig
from uets_jax.errors import UserError
from uets_jax.measure.difference import difference
from uets_jax.meta.family import Tasks
from uets_jax.meta.settings import MetaConfig
from uets_jax.meta.task_gpt import gpt
from uets_jax.meta.task_text import texts
from uets_jax.train.files import write_json
from uets_jax.validation import validate

ARMS = (
    ("gate", 0),
    ("gate_mlp", 0),
    ("no_recurrence", 0),
    ("no_muon", 0),
    ("no_augmentation", 0),
    ("gate", 1),
    ("gate", 2),
    ("bias", 0),
)
HYBRID = (("every_4", 0), ("every_4_nominal", 0), ("every_4_learned", 0), ("skip", 0))
TABLES = {"ablation": ARMS, "hybrid": HYBRID}
UPDATES = 24  # about five minutes of two cores, half of them to compile
FAMILIES = ("quadratic-8x16", "mlp-32-relu", "gpt-16x1x32/")
TASK = TASKS[0]
SEEDS = 3
PLAIN = ", default memories"  # of a rule by hand, as a gate departs from it
NOTE = (
    "Meta-trainings of equal updates on the same few families, then the task `narrow` "
    "at AdamW's steps with the rate, ratio and decay of the nominal rule (Muon, for "
    "no_muon AdamW) as tuned, b1, b2 and momentum as meta-training had them. "
    "difference_nominal: of bits per byte to that rule with the same settings, paired "
    "over seeds, below 0 is better, with a t-interval; difference_tuned: to it with "
    "all that was tuned. kept_stages: that beat their start on held-out families; "
    "gain: their sum, see optimizer.meta_cost."
)
OF_TABLE = {
    "ablation": " bias: constants by role alone.",
    "hybrid": (
        " every_4: a decision every 4 steps, which holds between; every_4_nominal: the "
        "nominal rule between; every_4_learned: of both what the gate decides; skip: "
        "the gate may leave out updates of layers, each step decided."
    ),
}
Record = Mapping[str, Any]
Arms = Sequence[tuple[str, int]]


def run(
    given: argparse.Namespace, words: Sequence[str], said: str, table: str = "ablation"
) -> None:
    """Meta-trains what is not there yet, runs the task, writes the table.

    Args:
      given: of the command line.
      table: of `TABLES`.
      words: of it, for workers.
      said: the command, for the record.
    """
    arms, folder = TABLES[table], given.runs / table
    updates = given.updates or UPDATES
    settings = tuned(given.out)
    for arm, _ in arms:
        validate(run_config(given.stores, arm, nominal_of(arm), settings, 1, "default"))
    if given.worker >= 0:
        pin(given.worker)
    else:
        tracks.clean(given.data_dir, given.stores)  # the text of TASK
    if given.worker < 0 and given.workers > 1:
        serve(given.workers, "experiments.meta_optimizer", words)
    for arm, seed in arms:
        learn(arm, seed, updates, given.data_dir, folder)
    if given.worker >= 0:
        return
    wanted = functools.partial(plan, given.stores, folder, settings, arms=arms)
    made = rows(list(run_queue(wanted, folder).values()), costs(folder, arms))
    about = {"updates": updates, "families": list(FAMILIES)}
    note = NOTE + OF_TABLE[table]
    print(write_record(f"optimizer.{table}", made, said, about, note, given.out))


def learn(arm: str, seed: int, updates: int, data: Path, folder: Path) -> None:
    """A short meta-training, unless it is there or another worker has it."""
    path = folder / arm / f"seed-{seed}" / "cost.json"
    with claimed(path.with_suffix(".lock")) as mine:
        if not mine or path.exists():
            return
        config = MetaConfig(updates=updates, validate=1 << 20)
        made = meta_gate.trained(arm, VARIANTS[arm], seed, config, data, folder, few)
        write_json(path, {"rows": made.rows})


def few(read: meta_gate.Texts) -> Tasks:
    """The families that are quick to compile and to run, of texts those as bytes; a
    text of its own chooses.
    """
    *_, last = read.plain
    tasks = read.tasks()
    quick = lambda name: name.startswith(FAMILIES) and not name.endswith("-bpe")
    source = texts({last: read.plain[last]}, meta_gate.VOCAB)
    return Tasks(
        tuple(f for f in tasks.train if quick(f.name)),
        (tasks.valid[0], gpt(source, 16, 1, 32, 32, 100)),
    )


def plan(
    stores: Path,
    folder: Path,
    settings: Mapping[str, Mapping[str, Any]],
    results: Results,
    arms: Arms = ARMS,
) -> list[Job]:
    """Runs of every arm whose weights are there, and of the rules they depart from."""
    jobs = []
    rules = [rule for rule in settings if rule in {nominal_of(arm) for arm, _ in arms}]
    wanted = [(rule, 0, rule, "") for rule in rules]
    wanted += [(f"{rule}{PLAIN}", 0, rule, "") for rule in rules]
    for arm, seed in arms:
        weights = folder / arm / f"seed-{seed}" / "theta.npz"
        if weights.exists():
            wanted.append((arm, seed, nominal_of(arm), str(weights)))
    for arm, meta_seed, rule, weights in wanted:
        for seed in range(1, 1 + SEEDS):
            config = run_config(stores, arm, rule, settings, seed, weights)
            labels = {"arm": arm, "meta_seed": meta_seed, "rule": rule, "seed": seed}
            where = f"runs/{arm.replace(', ', '-')}-{meta_seed}_s{seed}"
            jobs.append(Job(where, config, tuple(labels.items())))
    return jobs


def nominal_of(arm: str) -> str:
    """The rule that an arm's gate departs from."""
    return "adamw" if VARIANTS[arm].settings.nominal == "adamw" else "muon"


def run_config(
    stores: Path,
    arm: str,
    rule: str,
    settings: Mapping[str, Mapping[str, Any]],
    seed: int,
    weights: str = "",
) -> ExperimentConfig:
    """A run of the task; weights: of the arm's gate, empty: the rule by hand."""
    own = {**settings[rule]} if arm == rule else plain(settings[rule])
    if weights:
        own["weights"] = weights
        if "rest_ratio" in own:
            own["adam_ratio"] = own.pop("rest_ratio")
        s = VARIANTS[arm].settings
        own |= {"gate_every": s.every, "gate_between": s.between}
    name = "learned" if weights else rule
    return configure(Options(stores), TASK, name, own, 1.0, seed)


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Without what a gate multiplies: these stay as meta-training had them."""
    return {k: v for k, v in settings.items() if k not in ("b1", "b2", "momentum")}


def rows(
    records: Sequence[Record], spent: Mapping[tuple[str, int], Sequence[Record]]
) -> list[dict[str, Any]]:
    """A row for each arm, the nominal rules first."""
    found = []
    for arm, meta_seed in dict.fromkeys((r["arm"], r["meta_seed"]) for r in records):
        runs = runs_of(records, arm=arm, meta_seed=meta_seed)
        rule = runs[0]["rule"]
        row: dict[str, Any] = {
            "arm": arm,
            "meta_seed": meta_seed,
            "nominal": runs[0]["rule"],
            "task": TASK.name,
            "seeds": len(runs),
            "diverged": sum(r["diverged"] for r in runs),
        }
        losses = [bits(r) for r in runs]
        sound = bool(np.isfinite(losses).all())
        row["bits_per_byte"] = float(np.mean(losses)) if sound else None
        for name, base in (("nominal", f"{rule}{PLAIN}"), ("tuned", rule)):
            same = base == arm or arm == rule
            row |= _difference(name, runs, [] if same else runs_of(records, arm=base))
        paid = spent.get((arm, meta_seed), ())
        row["updates"] = sum(r["updates"] for r in paid) if paid else None
        row["core_seconds"] = sum(r["core_seconds"] for r in paid) if paid else None
        kept = [r for r in paid if r["chosen"] == "best"]
        row["kept_stages"] = " ".join(str(r["stage"]) for r in kept)
        row["gain"] = sum(r["gain"] for r in kept) if paid else None
        errors = [r["gain_error"] for r in kept]
        row["gain_error"] = math.hypot(*errors) if paid else None
        found.append(row)
    return found


def _difference(name: str, runs: Sequence[Record], base: Sequence[Record]) -> Any:
    """Of bits per byte, paired over seeds; None where there is none."""
    keys = (f"difference_{name}", f"difference_{name}_low", f"difference_{name}_high")
    ours = {r["seed"]: bits(r) for r in runs}
    theirs = {r["seed"]: bits(r) for r in base}
    both = sorted({*ours} & {*theirs})
    pairs = [(ours[s], theirs[s]) for s in both]
    if len(pairs) < 2 or not np.isfinite(pairs).all():
        return dict.fromkeys(keys)
    told = difference(*map(list, zip(*pairs, strict=True)))
    return dict(zip(keys, (told.mean, told.low, told.high), strict=True))


def costs(
    folder: Path, arms: Arms = ARMS
) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """What each meta-training has spent."""
    found = {}
    for arm, seed in arms:
        path = folder / arm / f"seed-{seed}" / "cost.json"
        if path.exists():
            found[arm, seed] = json.loads(path.read_text("utf-8"))["rows"]
    return found


def tuned(out: Path) -> dict[str, dict[str, Any]]:
    """Tuned settings of Muon and AdamW on the task, from `optimizer.trials`.

    Raises:
      UserError: where that record is missing or lacks them.
    """
    trials = read_record("optimizer.trials", out)["rows"]
    found = {}
    for rule in ("muon", "adamw"):
        mine = [r for r in trials if (r["task"], r["arm"]) == (TASK.name, rule)]
        sound = [r for r in mine if r["bits_per_byte"] is not None]
        if not sound:
            raise UserError(
                f"optimizer.trials: no trial of {rule} on {TASK.name}; run --compare "
                "--only compare first"
            )
        best = min(sound, key=lambda r: r["bits_per_byte"])
        pairs = (pair.split("=") for pair in best["settings"].split())
        found[rule] = {name: float(value) for name, value in pairs}
    return found
