"""One run of a pilot, and its record; what is on record is not run again."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uets_jax.config import ExperimentConfig, config_hash
from uets_jax.errors import NonFiniteLossError, UserError
from uets_jax.measure.ledger import NOT_TRAINING
from uets_jax.report.metrics import read_metrics
from uets_jax.train import loop
from uets_jax.train.files import said_to, told, write_json

Record = Mapping[str, Any]
KEPT = ("bits_per_byte", "steps", "tokens", "flops", "seconds", "params_sha256")


def carry_out(
    name: str, config: ExperimentConfig, corpus: str, runs: Path
) -> tuple[Record, bool]:
    """(the record of a run, whether it was made now).

    A run is known by its name, config and text. Its folder keeps the report but no
    checkpoint; what it says goes to a file beside it. One that was stopped goes on. A
    loss that is not finite is a result: `bits_per_byte` is None.

    Args:
      name: of the run.
      config: its own.
      corpus: fingerprint of its text.
      runs: folder of records `NAME-DIGEST.json` and run folders.

    Raises:
      UserError: as `train.loop.train`, or for a record that can't be read.
      StoppedError: after a signal; the same call goes on.
    """
    digest = hashlib.sha256(f"{config_hash(config)} {corpus}".encode()).hexdigest()
    folder = runs / f"{name}-{digest[:12]}"
    path = runs / f"{folder.name}.json"
    known = _read(path)
    if known is not None:
        return known, False
    record: dict[str, Any] = {"name": name, "config_hash": config_hash(config)}
    try:
        with said_to(runs / "log.txt"):
            resume = (folder / "config.json").exists()
            summary = loop.train(config, folder, resume=resume).summary
        record |= {key: summary[key] for key in KEPT}
    except NonFiniteLossError as error:
        record |= {"bits_per_byte": None, "why": str(error), **_spent(folder)}
    with told(path):
        write_json(path, record)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return record, True


def training_flops(record: Record) -> int:
    """All that a run has cost but its evaluation."""
    return sum(v for k, v in record["flops"].items() if k not in NOT_TRAINING)


def speed(record: Record) -> float:
    """FLOPs of training per second of steps and of waiting for data."""
    seconds = record["seconds"].get("train", 0.0) + record["seconds"].get("data", 0.0)
    return training_flops(record) / seconds


def _spent(folder: Path) -> dict[str, dict[str, int | float]]:
    """What a run that did not come to its end has cost."""
    records = read_metrics(folder / "metrics.jsonl")
    most = lambda key: max((r[key] for r in records if key in r), default=0)
    return {"flops": {"training": most("flops")}, "seconds": {"train": most("seconds")}}


def _read(path: Path) -> dict[str, Any] | None:
    """None where there is no file.

    Raises:
      UserError: if it is no record.
    """
    try:
        record = json.loads(path.read_text("utf-8"))
        _ = record["bits_per_byte"], record["flops"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: no record ({error}); delete it") from None
    return record
