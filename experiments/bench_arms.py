"""The rungs of the ladder as configs: a base recipe and parts, each its own switch.

A rung's budget is in total FLOPs of training, as the ledger counts them, statistics and
all: it gets as many steps as are left for it.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import arms, tracks
from experiments.runner import QUIET
from experiments.search import Axis
from uets_jax.config import ExperimentConfig, OptimConfig
from uets_jax.errors import UserError
from uets_jax.models.presets import from_dict
from uets_jax.train.budget import steps_for

BATCHES = (4, 8, 16, 32, 64)  # windows
RATIOS = (0.03125, 0.0625, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
ROWS = 262144

# name of a part: what it changes, room by room
PARTS: dict[str, dict[str, dict[str, Any]]] = {
    "memories": {},  # of the optimizer: searched, see `axes`
    "start": {"train": {"start": "counts"}},
    "rows": {"model": {"memory_rows": ROWS, "memory_trained": False}},
    "backoff": {"model": {"backoff_order": 5}},
    "lengths": {"curriculum": {"lengths": "32:0.1,64:0.3"}},
    "select": {"select": {"method": "aql", "mode": "blind", "candidates": 4}},
    "growth": {"growth": {"method": "fixed", "plan": "depth=2:0.5"}},
    "learned": {"optim": {"name": "learned"}},
}
IDEAS = ("lengths", "select", "growth", "learned")  # beside the monitor
ORDER = ("memories", "start", "rows", "backoff", *IDEAS)
COUNTING = 2  # of the back-off tables: raised where the same text is counted otherwise
COUNTED = ("rows", "backoff")  # need the start
MODES = {"clean": (), "mixture": ("target", "blind")}  # of selection, by track


@dataclasses.dataclass(frozen=True)
class Rung:
    """A line of the ladder.

    name:  as in the record.
    track: clean or mixture.
    mode:  what its selection may know of the target: target or blind; "": it selects
           nothing.
    base:  b2 or b2m.
    parts: switched on.
    after: name of the rung whose settings its search starts from; "": the recipe's.
    """

    name: str
    track: str
    mode: str = ""
    base: str = "b2m"
    parts: tuple[str, ...] = ()
    after: str = ""

    @property
    def key(self) -> str:
        """Names its runs."""
        plain = "".join(c if c.isalnum() else "_" for c in self.name)
        return "_".join(filter(None, (self.track, plain, self.mode)))

    @property
    def path(self) -> str:
        """Names it among all tracks and modes."""
        return "/".join(filter(None, (self.track, self.name, self.mode)))


def ladder(track: str) -> list[Rung]:
    """Every rung of a track: parts added one by one, each alone, the ideas alone.

    `uets` has all parts; `uets_core` the ideas without start and tables. A rung that
    selects is there once for each mode.
    """
    modes = MODES[track]
    order = [p for p in ORDER if p != "select" or modes]
    plain = lambda rung: "select" not in rung.parts
    found = [rung for rung in _parts(track, order) if plain(rung)]
    for mode in modes:
        every = [dataclasses.replace(r, mode=mode) for r in _parts(track, order)]
        found += [rung for rung in every if not plain(rung)]
    return found


def _parts(track: str, order: Sequence[str]) -> list[Rung]:
    """The rungs of parts in this order."""
    found, before = [], ""
    for place, part in enumerate(order):
        last = place == len(order) - 1
        name = "uets" if last else f"+ {part}"
        found.append(Rung(name, track, "", "b2m", (*order[: place + 1],), before))
        before = name
    for part in order:
        if part != "memories":
            alone = ("start", part) if part in COUNTED else (part,)
            found.append(Rung(f"b2m + {' + '.join(alone)}", track, "", "b2m", alone))
    ideas = tuple(p for p in order if p in IDEAS)
    found.append(Rung("uets_core", track, "", "b2", ("memories", *ideas)))
    return found


def axes(rung: Rung) -> tuple[Axis, ...]:
    """What is searched for a rung, most sensitive first; it starts at its recipe."""
    found = [
        Axis("learning_rate", arms.MUON_RATES, 3),
        Axis("adam_ratio", RATIOS, 7 if rung.base == "b2m" else 5),
        Axis("batch", BATCHES, 3 if rung.base == "b2m" else 1, closed=True),
    ]
    if "memories" in rung.parts:
        found += [
            Axis("b1", (0.3, 0.5, 0.7, 0.9), 2),
            Axis("momentum", (0.7, 0.85, 0.95), 1),
        ]
    return tuple(found)


def configure(
    stores: Path,
    rung: Rung,
    settings: Mapping[str, Any],
    flops: float,
    seed: int = 0,
    half: str = "b",
) -> ExperimentConfig:
    """The run of a rung.

    Args:
      stores: folder of the tracks' texts.
      rung: what is switched on.
      settings: of `axes`; the rate is that of a batch of 16, and goes with its root.
      flops: to be spent on training.
      seed: of parameters and data order.
      half: of the validation text.

    Raises:
      UserError: if the FLOPs don't pay for one step.
    """
    one = _config(stores, rung, tuple(settings.items()), half)
    try:
        steps = steps_of(dataclasses.replace(one, optim=untuned(one)), flops)
    except UserError as error:
        raise UserError(f"{rung.name}: {error}; give a larger --unit") from None
    optim = dataclasses.replace(one.optim, warmup=round(0.02 * steps))
    train = dataclasses.replace(one.train, steps=steps, seed=seed)
    return dataclasses.replace(one, optim=optim, train=train)


def _config(
    stores: Path, rung: Rung, settings: tuple[tuple[str, Any], ...], half: str
) -> ExperimentConfig:
    """A run whose number of steps is not known yet."""
    own = dict(settings)
    batch = own.pop("batch")
    rate = own.pop("learning_rate") * (batch / arms.REFERENCE_BATCH) ** 0.5
    values: dict[str, Any] = {
        "name": rung.name,
        "data": {"source": tracks.store(stores, rung.track, half)},
        "model": arms.model(rung.base, 1),
        "optim": {"name": "muon", "learning_rate": rate, "weight_decay": 0.0, **own},
        "train": {
            **QUIET,
            "batch": batch,
            "eval_every": 0,
            "eval_tokens": 0,
            "mesh": {"data": 1},
        },
    }
    for part in rung.parts:
        for room, fields in PARTS[part].items():
            values[room] = {**values.get(room, {}), **fields}
    if "select" in rung.parts and rung.mode == "target":
        sample = f"jsonl:{stores}/pool/sample.jsonl"
        values["select"] |= {"mode": "target", "target": sample}
    return from_dict(values)


def untuned(config: ExperimentConfig) -> OptimConfig:
    """Of all rates that cost the same, one."""
    return dataclasses.replace(config.optim, learning_rate=0.01, adam_ratio=1.0)


@functools.lru_cache(maxsize=256)
def steps_of(config: ExperimentConfig, flops: float) -> int:
    """How many the FLOPs pay for."""
    return steps_for(config, flops)
