"""Where a tracker's records go: TensorBoard files, Weights & Biases."""

import math
import netrc
import numbers
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

INIT_SECONDS = 15.0  # W&B may take so long to answer, then the run goes on offline
FINISH_SECONDS = 4.0
WANDB_SETTINGS: dict[str, Any] = {
    "silent": True,
    "console": "off",
    "init_timeout": INIT_SECONDS,
    "finish_timeout": FINISH_SECONDS,
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}


class Sink(Protocol):
    """Takes records one by one; runs in a thread of its own and may raise."""

    def write(self, record: dict[str, Any]) -> None:
        """Takes one record."""

    def close(self) -> None:
        """Hands over what it still holds."""


def finite(record: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The finite numbers of a record but its step."""
    for key, value in record.items():
        plain = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if plain and key != "step" and math.isfinite(value):
            yield key, float(value)


def event_text(record: dict[str, Any]) -> str:
    """`growth: depth 2 -> 4`, or nothing where the record is no event."""
    told = [str(record[key]) for key in ("event", "detail") if record.get(key)]
    return ": ".join(told) if record.get("event") else ""


class TensorBoard:
    """Scalars and texts in `folder/tensorboard`; a resumed run goes on in there.

    Steps that an earlier part of the run had written beyond the first record's are
    purged, as the metrics file is cut back.
    """

    def __init__(self, folder: Path):
        self._folder, self._writer = folder / "tensorboard", None

    def write(self, record: dict[str, Any]) -> None:
        """Adds the record at its step."""
        step = int(record["step"])
        if self._writer is None:
            self._writer = self._open(step + bool(record.get("event")))
        for key, value in finite(record):
            self._writer.add_scalar(key, value, step)
        if text := event_text(record):
            self._writer.add_text("events", text, step)

    def close(self) -> None:
        """Flushes and closes the file."""
        if self._writer is not None:
            self._writer.close()

    def _open(self, first: int) -> Any:
        from tensorboardX import (  # pyright: ignore[reportMissingImports]
            SummaryWriter,
        )

        purge = first if self._folder.exists() else None
        return SummaryWriter(str(self._folder), purge_step=purge, flush_secs=10)


class WandB:
    """A run at Weights & Biases; its id is kept in `folder/wandb_id` for a resume.

    `WANDB_MODE`, `WANDB_PROJECT` and the like are respected. Without a key the run is
    kept offline, and so it is when the server doesn't answer in `INIT_SECONDS`. Only
    config, records and name are sent: no code, command line, console or packages.
    """

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        name: str,
        warn: Callable[[str], None],
    ):
        import wandb  # pyright: ignore[reportMissingImports]

        self._folder = folder
        start = lambda mode: wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "uets_jax",
            name=name,
            id=run_id(folder),
            resume="allow",
            dir=str(folder),
            config=config,
            mode=mode,
            settings=wandb.Settings(**_known(wandb.Settings, WANDB_SETTINGS)),
        )
        mode = os.environ.get("WANDB_MODE") or None
        if mode in (None, "online") and not has_key():
            mode = "offline"
            warn(f"wandb: no API key; kept offline, to be sent by {self._sync()}")
        try:
            self._run = start(mode)
        except Exception as error:
            if mode in ("offline", "disabled"):
                raise
            self._run = start("offline")
            line = _line(error)
            warn(f"wandb: {line}; kept offline, to be sent by {self._sync()}")
        self._run.define_metric("*", step_metric="step")

    def write(self, record: dict[str, Any]) -> None:
        """Logs the record; "step" is its axis, so that a rollback may go back."""
        values: dict[str, Any] = dict(finite(record))
        if text := event_text(record):
            values["event"] = text
        if values:
            self._run.log({**values, "step": int(record["step"])})

    def close(self) -> None:
        """Ends the run at W&B."""
        self._run.finish()

    def _sync(self) -> str:
        return f"`wandb sync {self._folder / 'wandb' / 'offline-run-*'}`"


def run_id(folder: Path) -> str:
    """The run's id at W&B: made once, then read from `folder/wandb_id`."""
    path = folder / "wandb_id"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(secrets.token_hex(6) + "\n")
    return path.read_text().strip()


def has_key() -> bool:
    """Whether a W&B key is configured: in the environment or in the netrc file."""
    if any(os.environ.get(f"WANDB_{n}") for n in ("API_KEY", "IDENTITY_TOKEN_FILE")):
        return True
    url = os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"
    try:
        found = netrc.netrc(os.environ.get("NETRC")).hosts
    except (OSError, netrc.NetrcParseError):
        return False
    return (urlsplit(url).hostname or url) in found


def _known(settings: Any, wanted: dict[str, Any]) -> dict[str, Any]:
    """The settings that this version of wandb has."""
    fields = getattr(settings, "model_fields", None) or settings.__annotations__
    return {key: value for key, value in wanted.items() if key in fields}


def _line(error: Exception) -> str:
    """The error in one line."""
    first, *_ = [*str(error).splitlines(), ""]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
