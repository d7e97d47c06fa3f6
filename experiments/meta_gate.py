"""Meta-training of the gate: texts, stages, record, and the weights that are shipped.

Learned on made-up and real tasks (`uets_jax.meta.tasks`); real text is four domains of
the multi-domain corpus, as bytes and coded in a vocabulary of 1,024; the last of them
only chooses between weights.
WikiText-2 and the encyclopedic domain are never read: the comparison is made there.
"""

import argparse
import dataclasses
import json
import lzma
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.meta_stages import VARIANTS, Learned, Variant, learn
from experiments.records import write_record
from uets_jax.data.bpe import train_bpe
from uets_jax.errors import UserError
from uets_jax.measure.machine import commit
from uets_jax.meta.family import Tasks
from uets_jax.meta.settings import MetaConfig
from uets_jax.meta.tasks import default_tasks, listing
from uets_jax.optim.stored import SHIPPED, save_theta
from uets_jax.train.session import use_compilation_cache

DOMAINS = ("code", "fiction", "legal", "qa_dialogue")  # the last: validation
BYTES = 1_000_000  # of each
VOCAB = 256  # bytes
CODED_VOCAB = 1024  # of a byte-level BPE, trained on all of them but the last


class Texts(NamedTuple):
    """Token ids [n] of each domain: bytes, and coded by the BPE."""

    plain: dict[str, np.ndarray]
    coded: dict[str, np.ndarray]

    def tasks(self) -> Tasks:
        """Of the shipped gate."""
        return default_tasks(self.plain, VOCAB, self.coded, CODED_VOCAB)


def read_texts(folder: Path) -> Texts:
    """The first bytes of each domain.

    Raises:
      UserError: where the corpus is missing or has too little of a domain.
    """
    path = folder / "multidomain" / "train-00.jsonl.xz"
    found: dict[str, bytearray] = {name: bytearray() for name in DOMAINS}
    try:
        with lzma.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                document = json.loads(line)
                text = found.get(document["domain"])
                if text is not None and len(text) < BYTES:
                    text += document["text"].encode() + b"\n"
    except (OSError, lzma.LZMAError, ValueError) as error:
        raise UserError(f"{path}: {error}; give --data-dir") from None
    ids = {
        name: np.frombuffer(bytes(text[:BYTES]), np.uint8).astype(np.int32)
        for name, text in found.items()
    }
    for name, text in ids.items():
        if len(text) < BYTES // 10:
            raise UserError(f"{path}: only {len(text)} bytes of {name}")
    return Texts(
        ids, coded({name: bytes(text[:BYTES]) for name, text in found.items()})
    )


def coded(texts: dict[str, bytes]) -> dict[str, np.ndarray]:
    """Token ids by NAME-bpe, by a BPE that has not seen the last text."""
    words = {name: text.decode("utf-8", "ignore") for name, text in texts.items()}
    *own, _ = words.values()
    coder = train_bpe(own, CODED_VOCAB)
    ids = coder.encode_batch(words.values())
    return {f"{name}-bpe": x for name, x in zip(words, ids, strict=True)}


class Trained(NamedTuple):
    """What was learned, on which tasks, a row for each stage, and the weights' file."""

    learned: Learned
    tasks: Tasks
    rows: list[dict[str, Any]]
    path: Path


def trained(
    arm: str,
    variant: Variant,
    seed: int,
    config: MetaConfig,
    data: Path,
    runs: Path,
    choose: Callable[[Texts], Tasks] = Texts.tasks,
) -> Trained:
    """Meta-trains a variant; the weights are written into its folder.

    Args:
      arm: name of the folder and of the rows.
      variant: what is learned, and how.
      seed: of everything.
      config: budget and settings.
      data: folder of the corpora.
      runs: folder of the runs of all variants.
      choose: tasks from texts.
    """
    use_compilation_cache()
    tasks = choose(read_texts(data))
    folder = runs / arm / f"seed-{seed}"
    own = dataclasses.replace(config, seed=seed)
    learned = learn(variant, tasks, own, folder, note)
    path = folder / "theta.npz"
    save_theta(path, learned.theta, variant.settings)
    return Trained(learned, tasks, cost_rows(arm, learned), path)


def run(given: argparse.Namespace, said: str) -> None:
    """Meta-trains, writes the record and, if asked and earned, the weights.

    Args:
      given: minutes, updates, seed, validate, variant, runs, out, data_dir, ship.
      said: the command.
    """
    config = MetaConfig(
        updates=given.updates, minutes=given.minutes, validate=given.validate
    )
    name, variant = given.variant, VARIANTS[given.variant]
    made = trained(name, variant, given.seed, config, given.data_dir, given.runs)
    about = {
        "minutes": given.minutes,
        "seed": given.seed,
        "tasks": listing(made.tasks, 1),
    }
    print(write_record("optimizer.meta_cost", made.rows, said, about, NOTE, given.out))
    earned = any(result.chosen == "best" for result in made.learned.stages)
    if given.ship and earned:
        card = card_of(made, config, said)
        save_theta(SHIPPED, made.learned.theta, variant.settings, card)
        note(f"{SHIPPED}: written")
    elif given.ship:
        note("not shipped: no stage beats its start on held-out families")


def card_of(made: Trained, config: MetaConfig, said: str) -> dict[str, Any]:
    """The card of weights that are shipped."""
    horizons = [family.horizon for family in made.tasks.train]
    augment = config.augment
    return {
        "meta_trained": True,
        "tasks": listing(made.tasks),
        "horizon": [
            round(min(horizons) / augment.horizon),
            round(max(horizons) * max(2.0 * (augment.long > 0), augment.horizon)),
        ],
        "core_seconds": sum(row["core_seconds"] for row in made.rows),
        "flops": sum(row["total_flops"] or 0.0 for row in made.rows),
        "commit": commit() or "unknown",
        "source": said,
        "note": (
            "Chosen on held-out families; see results/optimizer.meta_cost.json. "
            "Instances were drawn afresh; tasks names some of each family."
        ),
    }


def note(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


NOTE = (
    "Meta-training of the gate. chosen: `best` where the weights beat the start on "
    "held-out families by two standard errors on fresh seeds, else `start`. gain: log "
    "held-out loss, best less start, over the fall for each e-fold of the steps: about "
    "minus the log of a speed-up, so below 0 is better; clipped to 3 for every run. "
    "gain_error: over seeds; that families differ is not in it, gain_families has the "
    "mean of each. Stage 0: nominal curves of all families, before the clock of "
    "--minutes."
)


def cost_rows(arm: str, learned: Learned) -> list[dict[str, Any]]:
    """A row for each stage: what was spent, and what came of it."""
    rest = ("chosen", "gain", "gain_error", "gain_families", "total_flops")
    first = {"arm": arm, "stage": 0, "updates": 0, "inner_steps": 0}
    first |= learned.setup._asdict() | dict.fromkeys(rest)
    return [first] + [
        {
            "arm": arm,
            "stage": number,
            "chosen": result.chosen,
            "updates": result.updates,
            "inner_steps": result.inner_steps,
            "seconds": result.seconds,
            "core_seconds": result.core_seconds,
            "total_flops": result.flops,
            "gain": result.confirm.mean,
            "gain_error": result.confirm.error,
            "gain_families": " ".join(f"{x:+.3f}" for x in result.confirm.families),
        }
        for number, result in enumerate(learned.stages, 1)
    ]
