"""Does a pilot say what the full run will? `python -m experiments.pilot --help`.

On three corpora the plain run and each method of `uets pilot`, with 1 % and 5 % of the
FLOPs and in full, are compared in the same way, with the same seeds.

    clean        WikiText-2; the selection sees no target
    mixture      the noisy pool; the selection sees the sample of target text
    shakespeare  Tiny Shakespeare, of which a full run makes some epochs

The full run is small (width 32, two layers, two windows of 128 tokens per step), so
that 1 % of it are some forty steps. By default all takes about 20 minutes on two cores
with `--workers 2`; `--minutes` sizes the full runs so that it takes about so long.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import arms, tracks
from experiments.records import check_kept, write_record
from experiments.runner import Job, Results, pin, run_queue, serve
from experiments.script import check_queue, command, ended, queue_parser
from uets_jax.config import ExperimentConfig, to_dict
from uets_jax.errors import EXIT_OK, UserError
from uets_jax.models.presets import from_dict
from uets_jax.pilot.gains import Gain, gains
from uets_jax.pilot.methods import METHODS
from uets_jax.pilot.plan import PARTS, QUIET, Plan, make_plan
from uets_jax.pilot.runs import carry_out, speed
from uets_jax.train.budget import steps_for
from uets_jax.train.files import told, write_json
from uets_jax.train.session import open_session

TABLE = "bench.pilot"
KEYS = ("corpus", "method", "share_fraction")
UNIT = 5e11  # FLOPs of the full run
SHARES, FULL = (0.01, 0.05), 1.0
WIDTH, DEPTH, BATCH, RATE, WARMUP = 32, 2, 2, 0.005, 0.02
CANDIDATES, EVAL_TOKENS = 4, 65_536
TIMED = 200  # steps
BUSY = 0.45  # of a worker's time that it trains; it also compiles, counts, reads
TOLD = (
    "flops_ratio",
    "flops_ratio_ci_low",
    "flops_ratio_ci_high",
    "helps",
    "bits_per_byte",
    "plain_bits_per_byte",
)
NOTE = (
    "predicted: of runs with at most share_fraction of the full run's FLOPs; full: of "
    "runs with up to all of them; each arm with three budgets (a quarter, a half, all "
    "of its largest) and the same seeds, each run decayed. _flops_ratio: FLOPs of the "
    "plain run over the method's up to the loss that the worse of the two ends with, "
    "higher is better; None where the runs only bound it. _ci: 95 % t-interval over "
    "paired seeds, or what a bootstrap bounds. agrees: both intervals lie above 1, or "
    "neither does. What is counted once before the first step is charged in full to "
    "the full run, at share_fraction to the pilot; cost_fraction is all that the arm's "
    "and the plain arm's pilot runs took, evaluation too, over the full run's FLOPs."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    given = parser().parse_args(words)
    return ended("pilot", lambda: run(given, words))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = queue_parser("pilot", "runs/pilot")
    flag = found.add_argument
    flag("--minutes", type=float, default=0.0, help="of all of it; sizes --unit")
    flag("--share", type=float, action="append", help="of the pilot's largest runs")
    flag("--only", choices=SOURCES, action="append", help="one corpus")
    flag("--stores", type=Path, default=Path("runs/baselines/data"))
    found.set_defaults(unit=UNIT)
    return found


def run(given: argparse.Namespace, words: Sequence[str]) -> int:
    """Data, runs, table."""
    check_queue(given)
    if not given.minutes >= 0:
        raise UserError(f"--minutes: must not be negative, got {given.minutes}")
    if given.worker >= 0:
        pin(given.worker)
        jobs = read_jobs(given.runs)
        run_queue(lambda results: jobs, given.runs)
        return EXIT_OK
    corpora = tuple(given.only or SOURCES)
    shares = tuple(given.share or SHARES)
    wanted = {(c, m.name, s) for c in corpora for m in METHODS for s in shares}
    check_kept(TABLE, KEYS, wanted, given.out)
    prepare(corpora, given.data_dir, given.stores)
    configs = {c: config(c, given.data_dir, given.stores) for c in corpora}
    unit = sized(given, configs) if given.minutes else given.unit
    made = plans(configs, unit, shares, given.seeds)
    jobs = [job for key, plan in made.items() for job in jobs_of(key, plan)]
    if given.workers > 1:
        write_jobs(given.runs, jobs)
        serve(given.workers, "experiments.pilot", words)
    results = run_queue(lambda results: jobs, given.runs)
    about = {
        "unit_flops": unit,
        "shares": list(shares),
        "parts": list(PARTS),
        "seeds": given.seeds,
        "width": WIDTH,
        "depth": DEPTH,
        "batch": BATCH,
        "learning_rate": RATE,
    }
    said = command("pilot", words)
    print(write_record(TABLE, rows(made, results), said, about, NOTE, given.out))
    return EXIT_OK


def _shakespeare(data: Path, stores: Path) -> dict[str, Any]:
    return {
        "source": f"files:{data}/tinyshakespeare/input.txt.xz",
        "tokenizer": f"bpe:{arms.VOCAB}",
        "valid_fraction": 0.1,
    }


# name of a corpus: what its runs read
SOURCES: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "clean": lambda data, stores: {"source": tracks.store(stores, "clean", "b")},
    "mixture": lambda data, stores: {"source": tracks.store(stores, "mixture", "b")},
    "shakespeare": _shakespeare,
}


def prepare(corpora: Sequence[str], data: Path, stores: Path) -> None:
    """Writes the stores that are not there yet.

    Raises:
      UserError: for data that is missing.
    """
    text = data / "tinyshakespeare" / "input.txt.xz"
    if "shakespeare" in corpora and not text.exists():
        raise UserError(f"--data-dir: {text} is missing")
    for name, write in (("clean", tracks.clean), ("mixture", tracks.mixture)):
        if name in corpora:
            write(data, stores)


def config(corpus: str, data: Path, stores: Path) -> ExperimentConfig:
    """The full run on a corpus, plain, but for its steps and warm-up."""
    model = {"width": WIDTH, "heads": 2, "head_dim": WIDTH // 2}
    select: dict[str, Any] = {"candidates": CANDIDATES}
    if corpus == "mixture":
        select["target"] = f"jsonl:{stores}/pool/sample.jsonl"
    return from_dict(
        {
            "name": f"pilot {corpus}",
            "data": SOURCES[corpus](data, stores),
            "model": {**arms.model("b2", DEPTH), **model},
            "optim": {"name": "muon", "learning_rate": RATE, "weight_decay": 0.0},
            "select": select,
            "train": {
                **QUIET,
                "batch": BATCH,
                "eval_tokens": EVAL_TOKENS,
                "mesh": {"data": 1},
            },
        }
    )


def sized(given: argparse.Namespace, configs: Mapping[str, ExperimentConfig]) -> float:
    """FLOPs of the full run with which all runs take about `--minutes`.

    Measured once for a folder of runs: the same command goes on.
    """
    path = given.runs / "unit.json"
    if path.exists():
        return float(json.loads(path.read_text("utf-8"))["unit_flops"])
    one = next(iter(configs.values()))
    session = open_session(one)
    train = dataclasses.replace(one.train, steps=TIMED)
    timed = dataclasses.replace(session.config, train=train)
    record, _ = carry_out("timed", timed, session.store.fingerprint, given.runs)
    seconds = 60 * given.minutes * given.workers * BUSY
    shares = (*(given.share or SHARES), FULL)
    unit = seconds * speed(record) / units_of_all(len(configs), given.seeds, shares)
    with told(path):
        write_json(path, {"unit_flops": unit, "flops_per_second": speed(record)})
    return unit


def units_of_all(corpora: int, seeds: int, shares: Sequence[float]) -> float:
    """FLOPs of all runs, in those of one full run."""
    return corpora * seeds * (1 + len(METHODS)) * sum(PARTS) * sum(shares)


Key = tuple[str, float]  # corpus, share


def plans(
    configs: Mapping[str, ExperimentConfig],
    unit: float,
    shares: Sequence[float],
    seeds: int,
) -> dict[Key, Plan]:
    """By corpus and share; the full runs last."""
    found = {}
    for corpus, one in configs.items():
        steps = steps_for(one, unit)
        full = dataclasses.replace(
            one,
            optim=dataclasses.replace(one.optim, warmup=round(WARMUP * steps)),
            train=dataclasses.replace(one.train, steps=steps),
        )
        for share in (*shares, FULL):
            found[corpus, share] = make_plan(full, unit, share, seeds)
    return found


def jobs_of(key: Key, plan: Plan) -> list[Job]:
    """The runs of a plan, for the queue."""
    corpus, share = key
    return [
        Job(
            job_name(key, shot.name),
            shot.config,
            (
                ("corpus", corpus),
                ("share", share),
                ("arm", shot.arm),
                ("part", shot.part),
                ("seed", shot.seed),
            ),
        )
        for shot in plan.shots
    ]


def write_jobs(runs: Path, jobs: Sequence[Job]) -> None:
    """For the workers: to plan takes minutes, and one process does it."""
    rows = [
        {"name": j.name, "config": to_dict(j.config), "labels": dict(j.labels)}
        for j in jobs
    ]
    path = runs / "jobs.json"
    with told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"jobs": rows})


def read_jobs(runs: Path) -> list[Job]:
    """What `write_jobs` wrote."""
    rows = json.loads((runs / "jobs.json").read_text("utf-8"))["jobs"]
    return [
        Job(row["name"], from_dict(row["config"]), tuple(row["labels"].items()))
        for row in rows
    ]


def job_name(key: Key, shot: str) -> str:
    """Of a run of a plan."""
    corpus, share = key
    return f"{corpus}/{share:g}/{shot}"


def rows(made: Mapping[Key, Plan], results: Results) -> list[dict[str, Any]]:
    """Of every corpus, method and share: what the pilot said, and what came."""
    found = []
    for (corpus, share), plan in made.items():
        if share == FULL:
            continue
        whole = made[corpus, FULL]
        said, why = outcome((corpus, share), plan, results)
        came, why_not = outcome((corpus, FULL), whole, results)
        for method in (m.name for m in METHODS):
            found.append(
                {
                    "corpus": corpus,
                    "method": method,
                    "share_fraction": share,
                    "seeds": len(plan.seeds),
                    **verdict(said.get(method), came.get(method)),
                    "cost_fraction": spent((corpus, share), plan, method, results),
                    "why": why.get(method) or why_not.get(method),
                }
            )
    return found


def outcome(
    key: Key, plan: Plan, results: Results
) -> tuple[dict[str, Gain], dict[str, str]]:
    """What each method gained by its name, and why others are missing."""
    mine = {shot.name: results[job_name(key, shot.name)] for shot in plan.shots}
    found, skipped = gains(plan, mine)
    return {one.method: one for one in found}, skipped


def verdict(said: Gain | None, came: Gain | None) -> dict[str, Any]:
    """Both ratios, and whether they say the same; None where one is missing."""
    found = {**_told("predicted", said), **_told("full", came)}
    if said is None or came is None:
        return {**found, "agrees": None, "intervals_overlap": None}
    overlap = said.low <= came.high and came.low <= said.high
    return {**found, "agrees": said.helps == came.helps, "intervals_overlap": overlap}


def _told(label: str, one: Gain | None) -> dict[str, Any]:
    values = {} if one is None else one.to_dict()
    return {f"{label}_{name}": values.get(name) for name in TOLD}


def spent(key: Key, plan: Plan, method: str, results: Results) -> float:
    """What the runs of a method and of the plain arm took, in full runs."""
    records = [
        results[job_name(key, shot.name)]
        for shot in plan.shots
        if shot.arm in (plan.arms[0].name, method)
    ]
    return sum(sum(r.get("flops", {}).values()) for r in records) / plan.flops


if __name__ == "__main__":
    sys.exit(main())
