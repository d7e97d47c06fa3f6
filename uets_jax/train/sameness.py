"""Whether a run that goes on is still the run that was stored."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from uets_jax.config import FREE_ON_RESUME, ExperimentConfig, to_dict
from uets_jax.errors import UserError, nearest
from uets_jax.models.presets import read_config


def check_allow(allow: Iterable[str]) -> None:
    """Raises `UserError` for a word that names no field, room or part of a run."""
    fields = flat(to_dict(ExperimentConfig()))
    rooms = {f.rpartition(".")[0] for f in fields} - {""}
    known = {*fields, *rooms, "overrides"}
    for word in allow:
        if word not in known:
            raise UserError(f"--allow {word}: {nearest(word, known)}")


def check_same_run(
    config: ExperimentConfig, stored: Path, allow: Sequence[str] = ()
) -> list[str]:
    """Compares a config with that of the run that it is to continue.

    Args:
      config: what the run would go on with.
      stored: its `config.json`; where there is none, nothing is compared.
      allow: fields (`optim.learning_rate`) or rooms (`optim`) that may differ.

    Returns:
      What differs and is allowed, a sentence each.

    Raises:
      UserError: naming the first field that differs.
    """
    if not stored.exists():
        return []
    changed = []
    for field, old, new in _differences(read_config(stored), config):
        if not allowed(field, allow):
            raise UserError(
                f"{stored}: {field} is {old!r} there but {new!r} now; resume with the "
                f"stored config, allow it with --allow {field}, or train anew in "
                "another --out"
            )
        changed.append(f"{field} changed from {old!r} to {new!r}")
    return changed


def check_same_overrides(
    root: Path, record: dict[str, Any], have: list[str], allow: Sequence[str] = ()
) -> list[str]:
    """As `check_same_run`, for the names of the user's own parts."""
    old = record["overrides"]
    if old == have:
        return []
    if not allowed("overrides", allow):
        raise UserError(
            f"{root}: was trained with overrides {old}, now {have}; give the same "
            "ones to the Python function"
        )
    return [f"overrides changed from {old} to {have}"]


def check_same_data(
    root: Path,
    record: dict[str, Any],
    tokenizer: str,
    data: str,
    allow: Sequence[str] = (),
) -> list[str]:
    """As `check_same_run`, for the hashes of the tokenizer and of all tokens."""
    changed = []
    for what, field, key, have in (
        ("another tokenizer", "data.tokenizer", "tokenizer_sha256", tokenizer),
        ("other data", "data.source", "data_sha256", data),
    ):
        old = record[key]
        if old == have:
            continue
        if not allowed(field, allow):
            raise UserError(
                f"{root}: was trained with {what} ({old[:12]}, now {have[:12]}): what "
                f"{field} reads has changed; restore it (or resume with --allow "
                f"{field})"
            )
        changed.append(f"{what} than before: {old[:12]}, now {have[:12]}")
    return changed


def check_same_assets(
    root: Path, record: dict[str, Any], have: str, allow: Sequence[str] = ()
) -> list[str]:
    """As `check_same_run`, for the hash of what the selection was made from.

    A checkpoint from before there were any has none and is not compared.
    """
    old = record.get("assets_sha256", have)
    if old == have:
        return []
    what = "another target sample or reference"
    if not allowed("select", allow):
        raise UserError(
            f"{root}: was trained with {what} ({old[:12]}, now {have[:12]}): what "
            "select.target or select.reference reads has changed; restore it (or "
            "resume with --allow select)"
        )
    return [f"{what} than before: {old[:12]}, now {have[:12]}"]


def allowed(field: str, allow: Sequence[str]) -> bool:
    """Whether one of the words names the field or a room that it is in."""
    return any(field == word or field.startswith(word + ".") for word in allow)


def _differences(
    old: ExperimentConfig, new: ExperimentConfig
) -> Iterator[tuple[str, Any, Any]]:
    """(field, old, new) of the fields that no resume may change by itself."""
    was, now = flat(to_dict(old)), flat(to_dict(new))
    for field in was:
        free = field in FREE_ON_RESUME
        if field == "train.eval_every" and old.train.target:
            free = False  # validations decide when the run cools down
        if not free and was[field] != now[field]:
            yield field, was[field], now[field]


def flat(values: dict[str, Any], where: str = "") -> dict[str, Any]:
    """Nested dicts as one, by dotted path."""
    found = {}
    for key, value in values.items():
        path = f"{where}.{key}" if where else key
        found |= flat(value, path) if isinstance(value, dict) else {path: value}
    return found
