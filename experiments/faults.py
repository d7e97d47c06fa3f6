"""Faults, done to real runs again and again; what fails is counted.

    python -m experiments.faults                       # all, as often as recorded
    python -m experiments.faults --only kill9 --trials 100 --seed 7

Rows go to `results/foundation.faults.json`; those of the other faults stay there. Exit
code 1: a trial failed. The runs of failed trials are kept below --runs.
"""

import argparse
import datetime
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from experiments.fault_checks import Failure
from experiments.fault_damage import damage
from experiments.fault_devices import COUNTS, PAIRS, devices
from experiments.fault_disk import disk_full
from experiments.fault_runs import Bench, Row
from experiments.fault_saves import kill_in_save
from experiments.fault_signals import kill9, sigterm
from experiments.records import read_record, write_record
from uets_jax.errors import EXIT_OK
from uets_jax.measure.machine import commit

TABLE = "foundation.faults"
EXIT_FAILED = 1
NOTE = (
    "All on the CPU. kill9, sigterm: parameters, order of the data, every loss, tokens "
    "and FLOPs bit-identical to the uninterrupted run. kill_in_save: every checkpoint "
    "verifies, the newest one loads, leftovers are swept. damage: right values or "
    "none. disk_full: one line, no checkpoint lost, bit-identical once there is room. "
    "devices: saved on n of 1, 2, 4, 8, gone on with on m: bit-equal state, same "
    "samples, losses within 1e-5. A kill leaves what was written to the system's cache "
    "in place; loss of power is not tried."
)


class Fault(NamedTuple):
    """What is done, and how often unless told."""

    act: Callable[[Bench, int], Row]
    trials: int


FAULTS: dict[str, Fault] = {
    "kill9": Fault(kill9, 20),
    "sigterm": Fault(sigterm, 20),
    "kill_in_save": Fault(kill_in_save, 60),
    "damage": Fault(damage, 300),
    "disk_full": Fault(disk_full, 20),
    "devices": Fault(devices, len(PAIRS)),
}


def record(row: Row, bench: Bench, out: Path) -> Path:
    """Writes a row into the record, in place of an older one of its fault.

    Rows keep their own commit and date: they may be measured piece by piece.
    """
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    fresh = {**row, "seed": bench.seed, "commit": commit(), "date": today}
    exists = (out / f"{TABLE}.json").exists()
    rows = read_record(TABLE, out)["rows"] if exists else []
    by_fault = {r["fault"]: r for r in rows} | {row["fault"]: fresh}
    order = sorted(by_fault, key=list(FAULTS).index)
    config = {"steps": bench.steps, "flags": list(bench.flags)}
    return write_record(
        TABLE,
        [by_fault[fault] for fault in order],
        "python -m experiments.faults",
        config,
        NOTE,
        out,
    )


def use_cpu() -> None:
    """This process only reads checkpoints: on the CPU, as for the most devices."""
    if jax.config.values["jax_num_cpu_devices"] < max(COUNTS):
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", max(COUNTS))


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 nothing failed, 1 a trial failed, 2 bad input."""
    parser = argparse.ArgumentParser(prog="python -m experiments.faults")
    parser.add_argument("--only", nargs="+", choices=FAULTS, metavar="FAULT")
    parser.add_argument("--trials", type=int, help="of each, instead of its own number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--runs", type=Path, default=Path("runs/faults"))
    given = parser.parse_args(argv)
    use_cpu()
    runs = given.runs.absolute()
    bench, failures = Bench(runs, runs / "cache", given.seed), 0
    for name in given.only or FAULTS:
        fault = FAULTS[name]
        try:
            row = fault.act(bench, given.trials or fault.trials)
        except Failure as error:
            print(f"faults: error: {name}: no trial was made: {error}", file=sys.stderr)
            return EXIT_FAILED
        failures += row["failures"]
        print(f"{record(row, bench, given.out)}: {row}", flush=True)
    return EXIT_FAILED if failures else EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
