"""Meta-training of the gate: texts, stages, record, and the weights that are shipped.

Learned on made-up and real tasks (`uets_jax.meta.tasks`); real text is bytes of four
domains of the multi-domain corpus, the last of which only chooses between weights.
WikiText-2 and the encyclopedic domain are never read: the comparison is made there.
"""

import argparse
import json
import lzma
import sys
from pathlib import Path
from typing import Any

import numpy as np

from experiments.meta_stages import VARIANTS, Learned, learn
from experiments.records import write_record
from uets_jax.errors import UserError
from uets_jax.measure.machine import commit
from uets_jax.meta.settings import MetaConfig
from uets_jax.meta.tasks import default_tasks, listing
from uets_jax.optim.stored import SHIPPED, save_theta
from uets_jax.train.session import use_compilation_cache

DOMAINS = ("code", "fiction", "legal", "qa_dialogue")  # the last: validation
BYTES = 1_000_000  # of each


def read_texts(folder: Path) -> dict[str, np.ndarray]:
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
    return ids


def run(given: argparse.Namespace, said: str) -> None:
    """Meta-trains, writes the record and, if asked and earned, the weights.

    Args:
      given: minutes, updates, seed, validate, variant, runs, out, data_dir, ship.
      said: the command.
    """
    use_compilation_cache()
    tasks = default_tasks(read_texts(given.data_dir), 256)
    config = MetaConfig(
        updates=given.updates,
        minutes=given.minutes,
        seed=given.seed,
        validate=given.validate,
    )
    variant = VARIANTS[given.variant]
    runs = given.runs / given.variant / f"seed-{given.seed}"
    learned = learn(variant, tasks, config, runs, note)
    save_theta(runs / "theta.npz", learned.theta, variant.settings)
    rows = cost_rows(given.variant, learned)
    about = {"minutes": given.minutes, "seed": given.seed, "tasks": listing(tasks, 1)}
    print(write_record("optimizer.meta_cost", rows, said, about, NOTE, given.out))
    if given.ship and any(result.chosen == "best" for result in learned.stages):
        horizons = [family.horizon for family in tasks.train]
        augment = config.augment
        card = {
            "meta_trained": True,
            "tasks": listing(tasks),
            "horizon": [
                round(min(horizons) / augment.horizon),
                round(2 * max(horizons) * augment.horizon),
            ],
            "core_seconds": sum(row["core_seconds"] for row in rows),
            "flops": sum(row["total_flops"] for row in rows),
            "commit": commit() or "unknown",
            "source": said,
            "note": "Chosen on held-out families; see results/optimizer.meta_cost.json",
        }
        save_theta(SHIPPED, learned.theta, variant.settings, card)
        note(f"{SHIPPED}: written")


def note(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


NOTE = (
    "Meta-training of the gate. chosen: `best` where the weights beat the start on "
    "held-out families by two standard errors on fresh seeds, else `start`. gain: log "
    "held-out loss, best less start, over the fall for each e-fold of the steps: about "
    "minus the log of a speed-up, so below 0 is better; clipped to 1 for every run."
)


def cost_rows(arm: str, learned: Learned) -> list[dict[str, Any]]:
    """A row for each stage: what was spent, and what came of it."""
    return [
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
        }
        for number, result in enumerate(learned.stages, 1)
    ]
