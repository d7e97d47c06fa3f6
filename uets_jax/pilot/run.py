"""A pilot from a config to `pilot.json` and its page."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from uets_jax.config import ExperimentConfig
from uets_jax.errors import UserError
from uets_jax.pilot.gains import gains
from uets_jax.pilot.methods import plain
from uets_jax.pilot.page import write
from uets_jax.pilot.plan import (
    LEAST,
    PLAIN,
    QUIET,
    SEEDS,
    SHARE,
    Plan,
    Shot,
    make_plan,
    together,
)
from uets_jax.pilot.result import result
from uets_jax.pilot.runs import Record, carry_out, speed
from uets_jax.report import units
from uets_jax.train.budget import spending, steps_for
from uets_jax.train.files import told, write_json
from uets_jax.train.session import open_session

TIMED = 4 * LEAST  # steps of the run that says how fast this machine is


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a pilot is asked for.

    config:  the full run, its methods included.
    flops, minutes: of training, of the full run (minutes on this machine, as a short
      run of the plain arm tells); at most one of them. Neither: `train.steps`.
    share:   of these FLOPs that the largest runs of each arm get.
    seeds:   of each arm and budget.
    """

    config: ExperimentConfig
    flops: float = 0.0
    minutes: float = 0.0
    share: float = SHARE
    seeds: int = SEEDS

    def __post_init__(self) -> None:
        if self.flops and self.minutes:
            raise UserError("--flops, --minutes: give one of them")
        for name in ("flops", "minutes"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise UserError(f"--{name}: must be a number above 0, got {value}")


def pilot(
    asked: Asked, out: Path, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Runs what is not on record yet; writes `pilot.json`, `pilot.html`, `pilot.md`.

    Each method alone; then, where several help, these together.

    Args:
      asked: the full run, and how much of it.
      out: folder of the pilot; its runs go into `out/runs`.
      say: gets a line per run.

    Returns:
      What stands in `pilot.json`; see `result.result`.

    Raises:
      UserError: for bad input, or a plain run that diverges.
      StoppedError: after a signal; the same call goes on.
    """
    runs = out / "runs"
    asked, timed = _budgeted(asked, runs, say)
    plan = make_plan(asked.config, asked.flops, asked.share, asked.seeds)
    say(summary(plan))
    records: dict[str, Record] = {}
    made = _carry_out(plan, runs, records, say)
    helping = [one.method for one in gains(plan, records)[0] if one.helps]
    if len(helping) > 1:
        plan = together(plan, asked.config, helping)
        made += _carry_out(plan, runs, records, say)
    found = result(asked.config, plan, records, out / "full", timed)
    found["cost"]["runs_made_now"] = made
    with told(out):
        write_json(out / "pilot.json", found)
    write(found, out)
    return found


def _carry_out(
    plan: Plan, runs: Path, records: dict[str, Record], say: Callable[[str], None]
) -> int:
    """Adds the records that are missing; returns how many of them were made now."""
    made = 0
    for number, shot in enumerate(plan.shots, 1):
        if shot.name in records:
            continue
        known = carry_out(shot.name, shot.config, plan.corpus, runs)
        records[shot.name], new = known
        made += new
        say(_line(shot, known, f"{number}/{len(plan.shots)}"))
        _check_plain(shot, records[shot.name])
    return made


def planned(asked: Asked, out: Path, say: Callable[[str], None] = print) -> Plan:
    """The runs that `pilot` would make; with minutes, the machine is timed."""
    asked, _ = _budgeted(asked, out / "runs", say)
    return make_plan(asked.config, asked.flops, asked.share, asked.seeds)


def summary(plan: Plan) -> str:
    """What a pilot is about to do, and to cost, in one line."""
    tried = ", ".join(arm.name for arm in plan.arms)
    return (
        f"full run {units.flops(plan.flops)}; pilot: {len(plan.shots)} runs "
        f"({tried}; {len(plan.seeds)} seeds) of at most {plan.share:.2%} of it, "
        f"{plan.expected() / plan.flops:.1%} in all, and one more arm if several help"
    )


def _budgeted(
    asked: Asked, runs: Path, say: Callable[[str], None]
) -> tuple[Asked, list[Record]]:
    """With the FLOPs of the full run and as many steps as they pay for, and the run
    that was timed for it.
    """
    config, timed = asked.config, []
    if asked.minutes:
        timed = [_timed(config, runs, say)]
        flops = asked.minutes * 60 * speed(timed[0])
        asked = dataclasses.replace(asked, flops=flops, minutes=0.0)
    if not asked.flops:
        return dataclasses.replace(asked, flops=float(sum(spending(config)))), timed
    steps = steps_for(config, asked.flops)
    train = dataclasses.replace(config.train, steps=steps)
    config = dataclasses.replace(config, train=train)
    return dataclasses.replace(asked, config=config), timed


def _timed(given: ExperimentConfig, runs: Path, say: Callable[[str], None]) -> Record:
    """A short run of the plain arm."""
    base = plain(given)
    session = open_session(base)
    quiet = {**QUIET, "steps": TIMED}
    train = dataclasses.replace(base.train, **quiet)
    config = dataclasses.replace(session.config, name="timed", train=train)
    record, _ = carry_out("timed", config, session.store.fingerprint, runs)
    say(f"this machine: {units.flops(speed(record))} per second of training")
    return record


def _check_plain(shot: Shot, record: Record) -> None:
    if shot.arm == PLAIN and record["bits_per_byte"] is None:
        raise UserError(
            f"the plain run diverges ({record['why']}); lower --optim.learning-rate"
        )


def _line(shot: Shot, known: tuple[Record, bool], place: str) -> str:
    record, new = known
    bits = record["bits_per_byte"]
    outcome = "diverged" if bits is None else f"{bits:.4f} bits per byte"
    return f"[{place}] {shot.name}  {outcome}{'' if new else '  (on record)'}"
