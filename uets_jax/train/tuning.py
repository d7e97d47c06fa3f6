"""Settings that a run finds by itself: successive halving before its first step.

    train.tune = "optim.learning_rate=0.01,0.02,0.04; select.knobs.novelty=5,10"

Every combination is rehearsed: a short run of its own, decayed to its end, from the
same parameters on the same data, judged by the validation text. Half of them go on to a
rehearsal that is longer (Jamieson & Talwalkar 2016, arXiv:1502.07943), until one is
left; the run then begins with it. Each round makes as many steps as the others, all of
them `train.tune_share` of the run's: equal steps, whatever a setting makes of the cost
of one. They are charged as probes, with what was counted before them and the
validations. Growth and stopping at a target are left out of them.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from uets_jax.config import SNAPSHOT, ExperimentConfig, GrowthConfig
from uets_jax.data.windows import stream
from uets_jax.errors import UserError
from uets_jax.measure.work import Cost
from uets_jax.step import evaluated
from uets_jax.train.combinations import Settings, changed, combinations, lengths, words
from uets_jax.train.executable import evaluation_cost
from uets_jax.train.files import write_json
from uets_jax.train.growing import parts, stage_executable
from uets_jax.train.mesh import put_batch
from uets_jax.train.processes import is_main
from uets_jax.train.session import open_session
from uets_jax.train.validation import validation


class Round(NamedTuple):
    """Rehearsals of one length: bits per byte of each combination, None: diverged."""

    steps: int
    losses: dict[Settings, float | None]


class Tuned(NamedTuple):
    """What a run begins with, how it was found, and what that cost."""

    config: ExperimentConfig
    rounds: tuple[Round, ...]
    cost: Cost

    def __str__(self) -> str:
        """`optim.learning_rate=0.02 of 3 settings, 60 steps rehearsed`."""
        first, last = self.rounds[0], self.rounds[-1]
        spent = sum(r.steps * len(r.losses) for r in self.rounds)
        return (
            f"{words(best(last))} of {len(first.losses)} settings, {spent:,} steps "
            "rehearsed"
        )


def tune(
    config: ExperimentConfig,
    overrides: Mapping[str, Any] | None = None,
    told: Callable[[str], None] = lambda line: None,
) -> Tuned:
    """Rehearses what `config.train.tune` names, and chooses.

    Raises:
      UserError: for a text that can't be read, a setting that does not exist or does
        not fit, too few steps for so many combinations, or if all of them diverge.
    """
    left = list(combinations(config))
    rounds, cost = [], Cost()
    for steps in lengths(config, len(left)):
        losses: dict[Settings, float | None] = {}
        for settings in left:
            losses[settings], spent = rehearse(config, settings, steps, overrides)
            cost = cost + spent
            found = losses[settings]
            said = "diverged" if found is None else f"{found:.4f} bits per byte"
            told(f"rehearsed {words(settings)} for {steps} steps: {said}")
        rounds.append(Round(steps, losses))
        left = halved(losses)
    chosen = changed(config, best(rounds[-1]))
    return Tuned(chosen, tuple(rounds), cost)


def halved(losses: Mapping[Settings, float | None]) -> list[Settings]:
    """The better half, the best first; those that diverged are left out.

    Raises:
      UserError: if nothing is left.
    """
    sound = {s: loss for s, loss in losses.items() if loss is not None}
    if not sound:
        raise UserError("train.tune: all combinations diverge; give smaller rates")
    ranked = sorted(sound, key=lambda settings: sound[settings])
    return ranked[: -(-len(losses) // 2)]


def best(found: Round) -> Settings:
    """Of least loss."""
    return halved(found.losses)[0]


def rehearse(
    config: ExperimentConfig,
    settings: Settings,
    steps: int,
    overrides: Mapping[str, Any] | None = None,
) -> tuple[float | None, Cost]:
    """(bits per byte of the validation text, FLOPs) of a short run, decayed to its end;
    None if it diverges.
    """
    session = open_session(shortened(changed(config, settings), steps), overrides)
    state, cost = session.initial_state(), sum(session.start_costs().values(), Cost())
    first = 0
    for end, length in parts(session):
        step = stage_executable(session, length)
        for batch in stream(session.windows, first, end):
            pool = put_batch(batch, session.mesh)
            state, _ = step.call(state, pool, session.assets)
        once = sum(step.count.most().values(), Cost())
        cost, first = cost + once * (end - first), end
    params = evaluated(session.program, state)
    found = validation(session, params, "valid", session.config.train.eval_tokens)
    each = evaluation_cost(session.program, session.mesh, session.config)
    loss = float(found["bits_per_byte"])
    cost = cost + each * int(found["valid_batches"])
    return loss if math.isfinite(loss) else None, cost


def shortened(config: ExperimentConfig, steps: int) -> ExperimentConfig:
    """A run of so many steps that is alike, without growth and without a target.

    Selection by the model before growth has none to refer to: it is left out, too.
    """
    share = steps / config.train.steps
    train = dataclasses.replace(config.train, steps=steps, target=0.0, tune="")
    warmup = min(config.optim.warmup, round(share * config.optim.warmup) + 1)
    optim = dataclasses.replace(config.optim, warmup=warmup)
    select = config.select
    if select.reference == SNAPSHOT:
        select = dataclasses.replace(select, method="none", reference="")
    rooms = {"train": train, "optim": optim, "select": select}
    return dataclasses.replace(config, **rooms, growth=GrowthConfig())


def store(found: Tuned, out: Path) -> None:
    """Writes `tuning.json` into a run's folder: rounds, choice, and what it cost."""
    row = lambda settings, loss: {**dict(settings), "bits_per_byte": loss}
    rounds = [
        {"steps": r.steps, "rehearsals": [row(*pair) for pair in r.losses.items()]}
        for r in found.rounds
    ]
    table = {
        "chosen": dict(best(found.rounds[-1])),
        "said": str(found),
        "rounds": rounds,
        "cost": dataclasses.asdict(found.cost),
    }
    if is_main():
        write_json(out / "tuning.json", table)


def stored(out: Path) -> tuple[str, Cost] | None:
    """(what to say, cost) of the tuning in a run's folder; None: there was none."""
    path = out / "tuning.json"
    if not path.exists():
        return None
    table = json.loads(path.read_text("utf-8"))
    return table["said"], Cost(**table["cost"])
