"""What arrives at TensorBoard and at W&B; the latter is a stand-in here."""

import http.server
import math
import socket
import struct
import sys
import threading
import types

import numpy as np
import pytest

from uets_jax.report import sinks


def tensorboard_events(folder):
    """Every event of the files in a folder: TFRecords of length, data and checksums."""
    from tensorboardX.proto import event_pb2

    for path in sorted(folder.glob("events.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack_from("<Q", data, at)
            yield event_pb2.Event.FromString(data[at + 12 : at + 12 + size])
            at += size + 16


def tensorboard_scalars(folder):
    return [
        (value.tag, event.step, value.simple_value)
        for event in tensorboard_events(folder)
        for value in event.summary.value
        if value.WhichOneof("value") == "simple_value"
    ]


def test_only_finite_numbers_count():
    record = {"step": 3, "a": 1, "b": np.float32(0.5), "c": math.nan, "d": -math.inf}
    record |= {"e": None, "f": "x", "g": True, "h": [1.0], "i": np.int64(7)}
    assert dict(sinks.finite(record)) == {"a": 1.0, "b": 0.5, "i": 7.0}


def test_an_event_is_a_line():
    assert sinks.event_text({"event": "growth", "detail": "2 -> 4"}) == "growth: 2 -> 4"
    assert sinks.event_text({"event": "skip"}) == "skip"
    assert sinks.event_text({"detail": "x", "loss": 1.0}) == ""


def test_an_error_is_a_short_line():
    assert sinks.one_line(ValueError("a\nb")) == "ValueError: a b"
    assert len(sinks.one_line(ValueError("word " * 1000))) <= 200


def test_tensorboard_holds_scalars_and_texts_across_a_resume(tmp_path):
    folder = tmp_path / "tensorboard"
    first = sinks.TensorBoard(tmp_path)
    assert not folder.exists()
    for step in (1, 2, 3):
        first.write({"step": step, "loss": 4.0 / step, "bad": math.nan})
    first.close()
    second = sinks.TensorBoard(tmp_path)
    second.write({"step": 2, "event": "resume", "detail": "at 2"})
    second.write({"step": 3, "loss": 0.25})
    second.close()
    scalars = tensorboard_scalars(folder)
    assert scalars[:2] == [("loss", 1, 4.0), ("loss", 2, 2.0)]
    assert scalars[-1] == ("loss", 3, 0.25)
    events = list(tensorboard_events(folder))
    assert [e.step for e in events if e.HasField("session_log")] == [3]
    texts = [v.tensor.string_val for e in events for v in e.summary.value]
    assert [b"resume: at 2"] in [list(text) for text in texts]


def test_a_sink_that_never_wrote_can_be_closed(tmp_path):
    sinks.TensorBoard(tmp_path).close()
    assert not any(tmp_path.iterdir())


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
    module = types.ModuleType("wandb")
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
    return sinks.WandB(tmp_path, {"a": 1}, "name", [].append if told is None else told)


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
    monkeypatch.setattr(sinks, "wandb_mode", lambda: ("online", ""))
    wandb.fail = {"online"}
    told = []
    opened(tmp_path, told.append)
    [run] = wandb.runs
    assert run.given["mode"] == "offline"
    assert run.given["id"] == sinks.run_id(tmp_path) + "-offline"
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
    assert sinks.wandb_mode() == ("offline", "no API key")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password x\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert sinks.wandb_mode() == (None, "")
    monkeypatch.setenv("WANDB_MODE", "online")
    assert sinks.wandb_mode() == ("online", "")


@pytest.mark.usefixtures("wandb")
def test_a_server_that_does_not_answer_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(sinks, "ANSWER_SECONDS", 0.1)
    monkeypatch.setenv("WANDB_API_KEY", "x")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("WANDB_BASE_URL", url)
        assert sinks.wandb_mode() == ("offline", f"{url} doesn't answer")
    assert not sinks.answers(url)
    assert not sinks.answers("no address")


def test_forgetting_wandb_takes_its_exit_hook_back(monkeypatch):
    setup = types.ModuleType("wandb.sdk.wandb_setup")
    monkeypatch.setitem(sys.modules, "wandb.sdk.wandb_setup", setup)
    sinks.forget_wandb()
    called = []
    connection = types.SimpleNamespace(_cleanup=lambda: called.append(1))
    setup.__dict__["_singleton"] = types.SimpleNamespace(_connection=connection)
    sinks.forget_wandb()
    assert called == [1]
    monkeypatch.delitem(sys.modules, "wandb.sdk.wandb_setup")
    sinks.forget_wandb()
    assert called == [1]
