"""Records at Weights & Biases, online or kept on disk."""

import http.client
import netrc
import os
import secrets
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from uets_jax.report.sinks import event_text, finite, one_line

ANSWER_SECONDS = 2.0  # W&B may take so long to answer, else the run is kept offline
INIT_SECONDS = 15.0
FINISH_SECONDS = 4.0
OFF_LINE = ("offline", "disabled", "dryrun")
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


class WandB:
    """A run at Weights & Biases; its id is kept in `folder/wandb_id` for a resume.

    `WANDB_MODE`, `WANDB_PROJECT` and the like are respected. Without a key, or when the
    server doesn't answer, the run is kept offline, and one line says so. Only config,
    records and name are sent: no code, command line, console or packages.
    """

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        name: str,
        warn: Callable[[str], None],
    ):
        # W&B's reports on itself would hold up the end of a run without a network
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb  # pyright: ignore[reportMissingImports]

        settings = wandb.Settings(**_known(wandb.Settings, WANDB_SETTINGS))
        start = lambda run, mode: wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "uets_jax",
            name=name,
            id=run,
            resume="allow",
            dir=str(folder),
            config=config,
            mode=mode,
            settings=settings,
        )
        run, (mode, why) = run_id(folder), wandb_mode()
        try:
            self._run = start(run, mode)
        except Exception as error:
            if mode in OFF_LINE:
                raise
            why = one_line(error)
            self._run = start(f"{run}-offline", "offline")
        if why:
            where = folder / "wandb" / "offline-run-*"
            warn(f"wandb: {why}; kept offline, send it by `wandb sync {where}`")
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


def forget_wandb() -> None:
    """Takes back W&B's exit hook, which waits for a hung service without end.

    It reaches into W&B without its locks, for another thread may hold them; where a
    version has no such hook there, nothing happens.
    """
    setup = sys.modules.get("wandb.sdk.wandb_setup")
    connection = getattr(getattr(setup, "_singleton", None), "_connection", None)
    cleanup = getattr(connection, "_cleanup", None)
    if callable(cleanup):
        cleanup()


def run_id(folder: Path) -> str:
    """The run's id at W&B: made once, then read from `folder/wandb_id`."""
    path = folder / "wandb_id"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(secrets.token_hex(6) + "\n")
    return path.read_text().strip()


def wandb_mode() -> tuple[str | None, str]:
    """The mode to start in, and why it is offline where nobody asked for that."""
    mode = os.environ.get("WANDB_MODE") or None
    url = os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"
    if mode in OFF_LINE:
        return mode, ""
    if not has_key(url):
        return "offline", "no API key"
    if not answers(url):
        return "offline", f"{url} doesn't answer"
    return mode, ""


def has_key(url: str) -> bool:
    """Whether a key for W&B at `url` is in the environment or in the netrc file."""
    if any(os.environ.get(f"WANDB_{n}") for n in ("API_KEY", "IDENTITY_TOKEN_FILE")):
        return True
    try:
        found = netrc.netrc(os.environ.get("NETRC")).hosts
    except (OSError, netrc.NetrcParseError):
        return False
    return (urlsplit(url).hostname or url) in found


def answers(url: str) -> bool:
    """Whether a web server answers there, with whatever, in `ANSWER_SECONDS`."""
    try:
        urllib.request.urlopen(url, timeout=ANSWER_SECONDS).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError, http.client.HTTPException):
        return False
    return True


def _known(settings: Any, wanted: dict[str, Any]) -> dict[str, Any]:
    """The settings that this version of wandb has."""
    fields = getattr(settings, "model_fields", None) or settings.__annotations__
    return {key: value for key, value in wanted.items() if key in fields}
