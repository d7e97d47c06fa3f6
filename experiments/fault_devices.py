"""Another number of devices: saved on n of them, gone on with on m."""

import functools
import shutil
from pathlib import Path

import numpy as np

from experiments.fault_checks import (
    abstract,
    check,
    figures,
    newest,
    state_sha256,
    summary,
)
from experiments.fault_runs import (
    Bench,
    Facts,
    Row,
    complete,
    remove,
    repeat,
    worst,
)
from uets_jax.train import checkpoint
from uets_jax.train.summary import params_sha256

COUNTS = (1, 2, 4, 8)
PAIRS = [(n, m) for n in COUNTS for m in COUNTS if n != m]
TOLERANCE = 1e-5  # of a loss in nats: sums over rows are added up in another order
STEPS, SAVED = 20, 10
FLAGS = (
    f"--train.steps={STEPS}",
    f"--train.checkpoint-every={SAVED}",
    f"--train.eval-every={SAVED}",
)


def devices(bench: Bench, trials: int) -> Row:
    """All ordered pairs of 1, 2, 4 and 8 virtual devices, again and again."""

    def trial(out: Path, _: np.random.Generator) -> Facts:
        before, after = PAIRS[int(out.name) % len(PAIRS)]
        return moved(bench, out, before, after)

    row, facts = repeat(bench, "devices", trials, trial)
    return row | {"loss_difference": worst(facts, "loss")}


@functools.lru_cache(maxsize=8)
def uninterrupted(bench: Bench, count: int) -> Path:
    """A whole run on so many devices."""
    out = bench.folder / f"devices-{count}"
    remove(out)
    complete(bench, out, FLAGS, count)
    return out


def moved(bench: Bench, out: Path, before: int, after: int) -> Facts:
    """Saves on `before` devices, goes on with `after`.

    Raises:
      Failure: unless the state is restored bit for bit, the samples are the same, and
        the losses nearly so.
    """
    reference = uninterrupted(bench, before)
    check_restored(reference, before, after)
    shutil.copytree(reference, out)
    (out / "summary.json").unlink()
    shutil.rmtree(out / "checkpoints" / f"{STEPS:08d}")
    check(newest(out) == SAVED, f"step {newest(out)} is the newest, not {SAVED}")
    complete(bench, out, devices=after)
    check_order(reference, out)
    return {"loss": check_losses(reference, out)}


def check_restored(out: Path, before: int, after: int) -> None:
    """Every checkpoint restores to the same bits, the last one to the run's own."""
    for step in checkpoint.steps(out / "checkpoints"):
        path = out / "checkpoints" / f"{step:08d}"
        here, there = (
            checkpoint.load(path, lambda _, n=n: abstract(out, n))[0]
            for n in (before, after)
        )
        check(
            state_sha256(here) == state_sha256(there),
            f"step {step} differs when restored on {after} instead of {before} devices",
        )
        if step == STEPS:
            trained = summary(out)["params_sha256"]
            check(
                params_sha256(there.params) == trained, f"step {step} is not as saved"
            )


def check_order(reference: Path, out: Path) -> None:
    """The same samples in the same order."""
    wanted, found = (summary(run)["data_sha256"] for run in (reference, out))
    check(wanted == found, f"data_sha256: {wanted} became {found}")


def check_losses(reference: Path, out: Path) -> float:
    """The largest difference between the losses of two runs, in nats."""
    wanted, found = figures(reference), figures(out)
    check(
        [r["step"] for r in wanted] == [r["step"] for r in found],
        "other steps are in metrics.jsonl",
    )
    worst = 0.0
    for one, other in zip(wanted, found, strict=True):
        for key in ("loss", "valid_loss"):
            if key in one:
                difference = abs(one[key] - other[key])
                where = f"step {one['step']}: {key} {one[key]} became {other[key]}"
                check(difference <= TOLERANCE, where)
                worst = max(worst, difference)
    return worst
