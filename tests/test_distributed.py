"""Two real processes over loopback: the same run as one, and what happens to faults."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from uets_jax.report.metrics import read_metrics
from uets_jax.train.checkpoint import steps, verify
from uets_jax.train.loop import train

# what each process runs; `slow` seconds per step leave time for a signal
CHILD = """
import json, sys, time
import jax
jax.config.update("jax_num_cpu_devices", 1)
from uets_jax.errors import ENDS, exit_code
from uets_jax.models.presets import from_dict
from uets_jax.train import loop, processes
given = json.loads(sys.argv[1])
processes.HEARTBEAT = 10
real = loop.stream
def slowly(windows, start, stop):
    for number, batch in enumerate(real(windows, start, stop)):
        time.sleep(1e6 if number == given["stuck"] else given["slow"])
        yield batch
loop.stream = slowly
try:
    with processes.joined(given["coordinator"], 2, given["process"]):
        loop.train(from_dict(given["config"]), given["out"], resume=given["resume"])
except ENDS as error:
    print(error, file=sys.stderr)
    sys.exit(exit_code(error))
"""


@pytest.fixture(scope="module")
def config(tiny, corpus):
    """TINY for 50 steps on the corpus, on two devices."""
    replace = dataclasses.replace
    return replace(
        tiny,
        data=replace(tiny.data, source=f"files:{corpus}/*.txt"),
        model=replace(tiny.model, vocab=257),
        train=replace(
            tiny.train,
            steps=50,
            eval_every=25,
            checkpoint_every=10,
            log_every=1,
            mesh=replace(tiny.train.mesh, data=2),
        ),
    )


class Pair:
    """Two processes that train together."""

    def __init__(self, config, out, slow=0.0, stuck=-1, other=None):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        given = {
            "coordinator": f"127.0.0.1:{port}",
            "config": dataclasses.asdict(config),
            "out": str(out),
            "resume": (out / "config.json").exists(),
            "slow": slow,
        }
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
        self.logs = [out.parent / f"{out.name}.{i}.log" for i in range(2)]
        self.processes = []
        for i, log in enumerate(self.logs):
            own = {**given, "process": i, "stuck": stuck if i else -1}
            if i and other:
                own["config"] = dataclasses.asdict(other)
            with log.open("w") as stream:
                command = [sys.executable, "-c", CHILD, json.dumps(own)]
                process = subprocess.Popen(command, stderr=stream, env=environment)
            self.processes.append(process)

    def wait_for_step(self, step):
        """Returns once process 0 has logged the step."""
        self.wait_for(lambda: f"step {step}/" in self.logs[0].read_text())

    def wait_for(self, condition):
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline, self.said()
            assert self.processes[0].poll() is None, self.said()
            time.sleep(0.05)

    def end(self, timeout=120):
        """Exit codes, once both have ended."""
        try:
            return [p.wait(timeout) for p in self.processes]
        finally:
            for process in self.processes:
                process.kill()
                process.wait()

    def said(self):
        return "\n".join(log.read_text()[-2000:] for log in self.logs)


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """The folder of a run of two processes that nothing disturbed."""
    out = tmp_path_factory.mktemp("pair") / "whole"
    pair = Pair(config, out)
    assert pair.end() == [0, 0], pair.said()
    return out


def curve(out, key):
    return [r[key] for r in read_metrics(out / "metrics.jsonl") if "loss" in r]


def summary(out):
    return json.loads((out / "summary.json").read_text())


def test_two_processes_equal_one_over_50_steps(whole, config, tmp_path):
    alone = dataclasses.replace(config.train.mesh, data=1)
    one = dataclasses.replace(
        config, train=dataclasses.replace(config.train, mesh=alone)
    )
    result = train(one, tmp_path / "one").summary
    both = summary(whole)
    assert both["processes"] == 2
    assert len(curve(whole, "loss")) == 50
    np.testing.assert_allclose(
        curve(whole, "loss"), curve(tmp_path / "one", "loss"), atol=1e-5, rtol=0
    )
    for key in ("data_sha256", "tokens", "flops", "matmul_flops", "params"):
        assert both[key] == result[key], key
    assert both["final_loss"] == pytest.approx(result["final_loss"], abs=1e-5)
    assert both["samples"]


@pytest.mark.slow
def test_a_stopped_and_a_killed_pair_end_bit_identical(whole, config, tmp_path):
    out = tmp_path / "run"
    pair = Pair(config, out, slow=0.1)
    pair.wait_for_step(8)
    pair.processes[1].send_signal(signal.SIGTERM)  # only one of them is told
    assert pair.end() == [75, 75], pair.said()
    assert "a signal to another process" in pair.logs[0].read_text()
    stopped = steps(out / "checkpoints")[-1]
    assert 8 <= stopped < 50

    pair = Pair(config, out, slow=0.1)
    pair.wait_for(lambda: steps(out / "checkpoints")[-1] > stopped)
    pair.processes[1].kill()
    killed = time.monotonic()
    codes = pair.end(timeout=60)
    assert time.monotonic() - killed < 60
    assert codes[0] != 0, pair.said()
    found = steps(out / "checkpoints")
    assert found[-1] > stopped
    for step in found:
        verify(out / "checkpoints" / f"{step:08d}")

    pair = Pair(config, out)
    assert pair.end() == [0, 0], pair.said()
    for key in ("params_sha256", "data_sha256", "tokens", "flops", "final_loss"):
        assert summary(out)[key] == summary(whole)[key], key
    assert curve(out, "loss") == curve(whole, "loss")
    assert summary(out)["resumes"] == 2


@pytest.mark.slow
def test_the_watchdog_ends_a_stuck_pair(config, tmp_path):
    watched = dataclasses.replace(
        config, train=dataclasses.replace(config.train, watchdog=15, eval_every=0)
    )
    pair = Pair(watched, tmp_path / "run", stuck=5)
    assert pair.end() == [124, 124], pair.said()
    said = [log.read_text() for log in pair.logs]
    assert "no progress for 15 s while" in said[1]
    assert "no progress for 15 s while" in said[0] or "process is gone" in said[0]


def test_processes_with_other_configs_are_refused(config, tmp_path):
    """Else each would hold other parameters, and nothing would notice."""
    other = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=1))
    pair = Pair(config, tmp_path / "run", other=other)
    assert pair.end() == [2, 2], pair.said()
    for log in pair.logs:
        assert "train.seed: process 1 has another one" in log.read_text()
    assert not (tmp_path / "run" / "config.json").exists()
