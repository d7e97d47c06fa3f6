"""A pilot from a config to `pilot.json` and its page."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from uets_jax.config import ExperimentConfig, config_hash
from uets_jax.errors import UserError
from uets_jax.measure.difference import break_even
from uets_jax.measure.machine import commit, machine, versions
from uets_jax.pilot.gains import Gain, Line, gains, line
from uets_jax.pilot.methods import METHODS, plain
from uets_jax.pilot.page import interval, ratio, verdict, write
from uets_jax.pilot.plan import (
    LEAST,
    PARTS,
    PLAIN,
    QUIET,
    SEEDS,
    SHARE,
    Plan,
    Shot,
    make_plan,
)
from uets_jax.pilot.recipe import command, recommended
from uets_jax.pilot.runs import Record, carry_out, speed
from uets_jax.report import units
from uets_jax.train.budget import spending, steps_for
from uets_jax.train.files import told, write_json
from uets_jax.train.session import open_session

TIMED = 4 * LEAST  # steps of the run that says how fast this machine is
HONEST = (
    "This is an extrapolation: measured at {share:.2%} of the budget, on {seeds} "
    "seeds. Effects of growth show late, a start from counts is worth most early; what "
    "helps in a short run may not in the whole one."
)
ALONE = (
    "Each method was measured alone; together they have not been, and gains do not "
    "multiply."
)


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

    Args:
      asked: the full run, and how much of it.
      out: folder of the pilot; its runs go into `out/runs`.
      say: gets a line per run.

    Returns:
      What stands in `pilot.json`: `full`, `plain`, `methods` (for each its FLOPs ratio
      to the plain run with a 95 % interval, whether it helps, ...), `skipped`,
      `recipe` (the methods that help, and a command line), `cost`, `warnings`.

    Raises:
      UserError: for bad input, or a plain run that diverges.
      StoppedError: after a signal; the same call goes on.
    """
    runs = out / "runs"
    asked, timed = _budgeted(asked, runs, say)
    plan = make_plan(asked.config, asked.flops, asked.share, asked.seeds)
    say(summary(plan))
    records, made = {}, 0
    shots = plan.shots
    for number, shot in enumerate(shots, 1):
        known = carry_out(shot.name, shot.config, plan.corpus, runs)
        records[shot.name], new = known
        made += new
        say(_line(shot, known, f"{number}/{len(shots)}"))
        _check_plain(shot, records[shot.name])
    found = _found(asked, plan, records, out)
    found["cost"] = cost([*timed, *records.values()], plan.flops, found)
    found["cost"]["runs_made_now"] = made
    with told(out):
        write_json(out / "pilot.json", found)
    write(found, out)
    return found


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
        f"{plan.expected() / plan.flops:.1%} in all"
    )


def text(found: Mapping[str, Any], out: Path) -> str:
    """The result as lines for a terminal."""
    rows = [
        f"{row['method']:<11}{ratio(row):<8} {interval(row):<16} {verdict(row)}"
        for row in found["methods"]
    ]
    rows += [f"{name:<11}not tried: {why}" for name, why in found["skipped"].items()]
    recipe, spent = found["recipe"], found["cost"]
    return "\n".join(
        (
            *rows,
            "",
            *recipe["notes"],
            *found["warnings"],
            f"cost: {units.flops(spent['flops'])}, {spent['of_full']:.1%} of the full "
            f"run, {spent['runs']} runs",
            f"page: {out / 'pilot.html'}",
            "",
            recipe["command"] or recipe["why"],
        )
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


def _found(
    asked: Asked, plan: Plan, records: Mapping[str, Record], out: Path
) -> dict[str, Any]:
    """All but the cost."""
    found, skipped = gains(plan, records)
    base = line(plan, plan.arms[0], records)
    assert base is not None  # a plain run that diverges has ended the pilot
    words = {method.name: method.told for method in METHODS}
    rows = []
    for one in found:
        arm = next(arm for arm in plan.arms if arm.name == one.method)
        mine = line(plan, arm, records)
        assert mine is not None
        rows.append(
            {
                **one.to_dict(),
                "told": words[one.method],
                "start_flops": arm.start,
                **_points(mine),
            }
        )
    config = asked.config
    return {
        "name": config.name,
        "source": config.data.source,
        "config_hash": config_hash(config),
        "corpus_sha256": plan.corpus,
        "full": {"flops": plan.flops, "steps": config.train.steps},
        "share": plan.share,
        "parts": list(PARTS),
        "seeds": list(plan.seeds),
        "plain": {
            "method": PLAIN,
            "bits_per_byte": float(base.losses[:, -1].mean()),
            **_points(base),
        },
        "methods": rows,
        "skipped": skipped,
        "recipe": _recipe(asked, plan, found, out),
        "warnings": [
            HONEST.format(share=plan.share, seeds=len(plan.seeds)),
            *_fading(plan, found),
        ],
        "machine": machine(),
        "commit": commit(),
        "versions": versions(),
    }


def _points(one: Line) -> dict[str, list[float]]:
    return {"flops": one.flops.tolist(), "losses": one.losses.mean(0).tolist()}


def _recipe(
    asked: Asked, plan: Plan, found: Sequence[Gain], out: Path
) -> dict[str, Any]:
    """The methods whose interval lies above 1, as a command line."""
    names = [one.method for one in found if one.helps]
    notes = [] if names else ["No interval lies above 1: the plain run is the recipe."]
    notes += [ALONE] if len(names) > 1 else []
    try:
        config = recommended(asked.config, names, plan.flops)
        words, why = command(config, str(out / "full")), ""
    except UserError as error:
        words, why = None, f"The methods can't be had together: {error}"
    return {"methods": names, "command": words, "why": why, "notes": notes}


def _fading(plan: Plan, found: Sequence[Gain]) -> list[str]:
    """Which leads shrink so fast that little may be left of them."""
    away = -math.log2(plan.share)
    return [
        f"{one.method}: its lead falls from {one.leads[-2]:.3f} to {one.leads[-1]:.3f} "
        f"bits per byte between half of the largest budget and the whole; at this pace "
        f"it is gone after {one.doublings:.1f} doublings, and the full run is "
        f"{away:.1f} away."
        for one in found
        if one.helps and one.doublings < away
    ]


def cost(
    records: Sequence[Record], full: float, found: Mapping[str, Any]
) -> dict[str, Any]:
    """What a pilot has cost itself, evaluation included, whenever its runs were made.

    break_even_runs: full runs after which the lower bound of the best method's ratio
      has paid for it; None without such a method.
    """
    flops = sum(sum(record["flops"].values()) for record in records)
    seconds = sum(sum(record["seconds"].values()) for record in records)
    lows = [row["flops_ratio_ci_low"] for row in found["methods"] if row["helps"]]
    saved = full * (1 - 1 / max(lows, default=1.0))
    runs = break_even(float(flops), saved) if lows else None
    return {
        "flops": flops,
        "of_full": flops / full,
        "seconds": round(seconds, 1),
        "runs": len(records),
        "break_even_runs": runs,
    }
