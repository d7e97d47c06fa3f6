"""What arrives at W&B, by a stand-in for its package."""

import http.server
import math
import socket
import sys
import threading
import types
from typing import Any

import pytest

from uets_jax.report import wandb_sink


class Settings:
    """As wandb's, in a version that knows two of the settings."""

    silent: bool
    console: str

    def __init__(self, **given):
        self.given = given


class FakeRun:
    """Remembers what it was given."""

    def __init__(self, given):
        self.given, self.logged, self.axes, self.finished = given, [], [], False

    def define_metric(self, name, step_metric):
        self.axes.append((name, step_metric))

    def log(self, values):
        self.logged.append(values)

    def finish(self):
        self.finished = True


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for the package; `fail` is the set of modes that can't start."""
    module: Any = types.ModuleType("wandb")
    module.runs, module.fail = [], set()

    def init(**given):
        if given["mode"] in module.fail:
            raise ConnectionError("no\nroute")
        module.runs.append(FakeRun(given))
        return module.runs[-1]

    module.init, module.Settings = init, Settings
    monkeypatch.setitem(sys.modules, "wandb", module)
    for name in ("MODE", "PROJECT", "BASE_URL", "API_KEY", "IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("NETRC", "/nowhere/netrc")
    return module


def opened(tmp_path, told=None):
    return wandb_sink.WandB(
        tmp_path, {"a": 1}, "name", [].append if told is None else told
    )


def test_wandb_without_a_key_is_offline_and_says_so(wandb, tmp_path):
    told = []
    sink = opened(tmp_path, told.append)
    sink.write({"step": 2, "loss": 1.5, "bad": math.nan})
    sink.write({"step": 3, "event": "growth", "detail": "2 -> 4"})
    sink.write({"step": 4, "loss": math.nan})
    sink.close()
    [run] = wandb.runs
    assert run.given["mode"] == "offline"
    assert run.given["config"] == {"a": 1}
    assert (run.given["project"], run.given["name"]) == ("uets_jax", "name")
    assert run.given["settings"].given == {"silent": True, "console": "off"}
    assert run.axes == [("*", "step")]
    assert run.logged == [
        {"loss": 1.5, "step": 2},
        {"event": "growth: 2 -> 4", "step": 3},
    ]
    assert run.finished
    [line] = told
    assert line.startswith("wandb: no API key; kept offline, send it by `wandb sync ")


def test_a_resumed_run_keeps_its_id(wandb, tmp_path):
    for _ in range(2):
        opened(tmp_path / "run")
    opened(tmp_path / "other")
    first, again, other = (run.given["id"] for run in wandb.runs)
    assert first == again != other
    assert (tmp_path / "run" / "wandb_id").read_text().strip() == first
    assert {run.given["resume"] for run in wandb.runs} == {"allow"}


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_the_wandb_mode_of_the_environment_holds(wandb, tmp_path, monkeypatch, mode):
    monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    told = []
    opened(tmp_path, told.append)
    assert wandb.runs[0].given["mode"] == mode
    assert wandb.runs[0].given["project"] == "mine"
    assert told == []
    wandb.fail = {mode}
    with pytest.raises(ConnectionError):
        opened(tmp_path)


def test_a_failed_start_goes_on_offline(wandb, tmp_path, monkeypatch):
    monkeypatch.setattr(wandb_sink, "wandb_mode", lambda: ("online", ""))
    wandb.fail = {"online"}
    told = []
    opened(tmp_path, told.append)
    [run] = wandb.runs
    assert run.given["mode"] == "offline"
    assert run.given["id"] == wandb_sink.run_id(tmp_path) + "-offline"
    assert "ConnectionError: no route; kept offline" in told[0]


@pytest.fixture
def server():
    """The address of a web server that says 404 to everything."""

    class Nothing(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(404)

        def log_message(self, format, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Nothing) as found:
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()
        thread.join()


@pytest.mark.usefixtures("wandb")
def test_a_server_that_answers_is_used(server, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_BASE_URL", server)
    assert wandb_sink.wandb_mode() == ("offline", "no API key")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password x\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert wandb_sink.wandb_mode() == (None, "")
    monkeypatch.setenv("WANDB_MODE", "online")
    assert wandb_sink.wandb_mode() == ("online", "")


@pytest.mark.usefixtures("wandb")
def test_a_server_that_does_not_answer_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(wandb_sink, "ANSWER_SECONDS", 0.1)
    monkeypatch.setenv("WANDB_API_KEY", "x")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("WANDB_BASE_URL", url)
        assert wandb_sink.wandb_mode() == ("offline", f"{url} doesn't answer")
    assert not wandb_sink.answers(url)
    assert not wandb_sink.answers("no address")


def test_forgetting_wandb_takes_its_exit_hook_back(monkeypatch):
    setup = types.ModuleType("wandb.sdk.wandb_setup")
    monkeypatch.setitem(sys.modules, "wandb.sdk.wandb_setup", setup)
    wandb_sink.forget_wandb()
    called = []
    connection = types.SimpleNamespace(_cleanup=lambda: called.append(1))
    setup.__dict__["_singleton"] = types.SimpleNamespace(_connection=connection)
    wandb_sink.forget_wandb()
    assert called == [1]
    monkeypatch.delitem(sys.modules, "wandb.sdk.wandb_setup")
    wandb_sink.forget_wandb()
    assert called == [1]
