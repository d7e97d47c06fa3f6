import functools
import json
import math
import os
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest

from uets_jax.config import replace_from_dict
from uets_jax.data.windows import chain_ids
from uets_jax.errors import NonFiniteLossError, StoppedError, UserError
from uets_jax.models.presets import read_config
from uets_jax.report.metrics import MetricsWriter, read_metrics
from uets_jax.train import loop
from uets_jax.train.finished import open_run


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """A run of 8 steps that was never stopped: (result, folder)."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return loop.train(config, out), out


def curve(out):
    """Records less what a clock decides."""
    kept = (
        "step",
        "loss",
        "grad_norm",
        "learning_rate",
        "tokens",
        "flops",
        "valid_loss",
    )
    records = (r for r in read_metrics(out / "metrics.jsonl") if "event" not in r)
    return [{k: r[k] for k in kept if k in r} for r in records]


def identical(out, whole):
    """The run in `out` ended bit-identical to the one that was never stopped."""
    result, expected = whole
    summary = json.loads((out / "summary.json").read_text())
    for key in ("params_sha256", "data_sha256", "tokens", "flops", "final_loss"):
        assert summary[key] == result.summary[key], key
    assert curve(out) == curve(expected)


def test_a_run_leaves_everything_that_is_promised(whole):
    result, out = whole
    names = {p.name for p in out.iterdir()}
    assert names == {
        "config.json",
        "tokenizer.json",
        "metrics.jsonl",
        "summary.json",
        "report.html",
        "report.md",
        "checkpoints",
    }
    summary = json.loads((out / "summary.json").read_text())
    assert summary == json.loads(json.dumps(result.summary))
    promised = (
        "final_loss bits_per_byte perplexity tokens steps flops seconds joules "
        "energy_source peak_memory_bytes params_sha256 data_sha256 versions commit "
        "config_hash"
    )
    assert set(promised.split()) <= set(summary)
    assert summary["steps"] == 8
    assert summary["tokens"] == 8 * 8 * 32
    assert summary["joules"] is None
    assert summary["perplexity"] == pytest.approx(math.exp(summary["final_loss"]))
    assert set(summary["flops"]) == {"forward_backward", "optimizer", "evaluation"}
    assert read_config(out / "config.json") == result.config


def test_metrics_hold_every_step_and_validation(whole):
    _, out = whole
    records = curve(out)
    train = [r for r in records if "loss" in r]
    assert [r["step"] for r in train] == list(range(1, 9))
    assert [r["step"] for r in records if "valid_loss" in r] == [4, 8]
    assert train[0]["loss"] == pytest.approx(math.log(257), rel=0.01)
    assert train[-1]["loss"] < train[0]["loss"] - 0.05
    assert [r["tokens"] for r in train] == [256 * s for s in range(1, 9)]
    flops = [r["flops"] for r in train]
    assert flops == [flops[0] * s for s in range(1, 9)]


def test_metrics_of_a_step_are_read_after_the_next_is_dispatched(
    config, tmp_path, monkeypatch
):
    real, events = loop.stage_executable, []

    def watched(*given):
        step = real(*given)

        def once(state, pool, assets):
            events.append(("dispatch", len(events) + 1))
            return step.call(state, pool, assets)

        return step._replace(call=once)

    write = MetricsWriter.write

    def noted(self, record):
        if "loss" in record:
            events.append(("read", record["step"]))
        write(self, record)

    monkeypatch.setattr(loop, "stage_executable", watched)
    monkeypatch.setattr(MetricsWriter, "write", noted)
    quiet = replace_from_dict(
        config, {"train": {"steps": 5, "eval_every": 0, "checkpoint_every": 0}}
    )
    loop.train(quiet, tmp_path / "run")
    kinds = [kind for kind, _ in events]
    assert kinds == ["dispatch", *["dispatch", "read"] * 4, "read"]
    assert [step for kind, step in events if kind == "read"] == [1, 2, 3, 4, 5]


def test_ids_are_chained_in_the_order_consumed(whole, config):
    result, _ = whole
    session = loop.open_session(config)
    chain = ""
    for step in range(8):
        chain = chain_ids(chain, session.windows.order(step))
    assert chain == result.summary["data_sha256"]


def test_a_stream_in_another_order_has_another_hash(
    whole, config, tmp_path, monkeypatch
):
    same = lambda windows, start, stop: (windows[0] for _ in range(start, stop))
    monkeypatch.setattr(loop, "stream", same)
    summary = loop.train(config, tmp_path / "run").summary
    assert summary["data_sha256"] != whole[0].summary["data_sha256"]


class Killed(BaseException):
    """Stands for a kill: nothing catches it, nothing is saved."""


@pytest.mark.parametrize("last", [5, 7])
def test_a_killed_run_resumes_bit_identical(last, whole, config, tmp_path, monkeypatch):
    real, out = loop.stage_executable, tmp_path / "run"

    def dying(*given):
        step = real(*given)

        def once(state, pool, assets):
            if int(state.step) == last:
                raise Killed
            return step.call(state, pool, assets)

        return step._replace(call=once)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "stage_executable", dying)
        with pytest.raises(Killed):
            loop.train(config, out)
    assert not (out / "summary.json").exists()
    loop.train(config, out, resume=True)
    identical(out, whole)
    events = [r for r in read_metrics(out / "metrics.jsonl") if "event" in r]
    assert events[-1]["detail"] == "resumed at step 4"


def test_resume_without_a_checkpoint_starts_at_zero_and_says_so(
    whole, config, tmp_path
):
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.json").write_text((whole[1] / "config.json").read_text())
    (out / "metrics.jsonl").write_text('{"step": 1, "loss": 9.0}\n')
    loop.train(config, out, resume=True)
    identical(out, whole)
    notes = [r["detail"] for r in read_metrics(out / "metrics.jsonl") if "event" in r]
    assert notes == ["no complete checkpoint: starting at step 0"]


def test_a_damaged_checkpoint_is_left_out_for_the_one_before(
    whole, config, tmp_path, capsys
):
    out = tmp_path / "run"
    shutil.copytree(whole[1], out)
    (out / "checkpoints" / "00000008" / "record.json").write_text("{}")
    loop.train(config, out, resume=True)
    identical(out, whole)
    assert "left out a damaged checkpoint" in capsys.readouterr().err


def test_what_a_signal_saves_outlives_damaged_newer_checkpoints(
    whole, config, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    shutil.copytree(whole[1], out)
    for step in ("00000004", "00000008"):
        (out / "checkpoints" / step / "record.json").write_text("{}")
    stop_at(monkeypatch, 3, "SIGTERM")
    with pytest.raises(StoppedError, match="SIGTERM at step 3"):
        loop.train(config, out, resume=True)
    monkeypatch.undo()
    assert open_run(out).record["step"] == 3
    loop.train(config, out, resume=True)
    identical(out, whole)


def test_a_finished_run_resumes_to_itself(whole, config, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole[1], out)
    before = (out / "summary.json").read_bytes()
    again = loop.train(config, out, resume=True)
    identical(out, whole)
    assert (out / "summary.json").read_bytes() == before  # with all its measurements
    assert again.summary == json.loads(before)


def stop_at(monkeypatch, step, name):
    """Lets a signal come during the given step of a run."""
    real, steps = loop.chain_ids, []

    def chain(previous, ids):
        steps.append(None)
        if len(steps) == step:
            os.kill(os.getpid(), signal.Signals[name])
        return real(previous, ids)

    monkeypatch.setattr(loop, "chain_ids", chain)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_saves_the_step_it_came_in(name, whole, config, tmp_path, monkeypatch):
    out = tmp_path / "run"
    stop_at(monkeypatch, 3, name)
    with pytest.raises(StoppedError, match=f"{name} at step 3"):
        loop.train(config, out)
    monkeypatch.undo()
    assert open_run(out).record["step"] == 3
    loop.train(config, out, resume=True)
    identical(out, whole)


def test_a_loss_that_stops_being_finite_ends_the_run(config, tmp_path):
    poison = optax.stateless(
        lambda updates, params: jax.tree.map(lambda u: u * np.nan, updates)
    )
    with pytest.raises(
        NonFiniteLossError, match=r"at step 2; lower --optim\.learning-rate"
    ):
        loop.train(config, tmp_path / "run", overrides={"tx": poison})
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert records[0]["loss"] > 0
    assert records[1]["nonfinite"]
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_last_update_that_diverges_is_no_finished_run(config, tmp_path):
    poison = optax.stateless(
        lambda updates, params: jax.tree.map(lambda u: u * np.nan, updates)
    )
    one = replace_from_dict(config, {"train": {"steps": 1}})
    with pytest.raises(NonFiniteLossError, match="valid_loss is nan at step 1"):
        loop.train(one, tmp_path / "run", overrides={"tx": poison})
    assert not (tmp_path / "run" / "summary.json").exists()


def test_a_run_whose_first_step_fails_leaves_its_folder_free(
    config, tmp_path, monkeypatch
):
    def broken(*given):
        raise UserError("no compiler")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "stage_executable", broken)
        with pytest.raises(UserError, match="no compiler"):
            loop.train(config, tmp_path / "run")
    short = replace_from_dict(config, {"train": {"steps": 1}})
    assert loop.train(short, tmp_path / "run").summary["steps"] == 1


def test_a_folder_that_holds_a_run_is_not_overwritten(whole, config):
    with pytest.raises(UserError, match="holds a run"):
        loop.train(config, whole[1])


def test_too_little_text_is_one_clear_line_and_leaves_no_run(config, tmp_path):
    wide = replace_from_dict(config, {"train": {"batch": 100_000}})
    with pytest.raises(UserError, match=r"fewer than train\.batch"):
        loop.train(wide, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_each_phase_is_traced_exactly_once(config, tmp_path, monkeypatch):
    traces = []

    def counted(hypers, step):
        traces.append(None)  # runs when the step is traced, never when it is called
        return hypers.learning_rate

    train = functools.partial(loop.train, overrides={"schedule": counted})
    train(config, tmp_path / "a")
    assert len(traces) == 1
    train(replace_from_dict(config, {"optim": {"learning_rate": 1e-4}}), tmp_path / "b")
    shorter = replace_from_dict(config, {"train": {"seed": 5, "steps": 6}})
    stop_at(monkeypatch, 3, "SIGTERM")
    with pytest.raises(StoppedError):
        train(shorter, tmp_path / "c")
    monkeypatch.undo()
    train(shorter, tmp_path / "c", resume=True)
    assert len(traces) == 1


def test_a_real_process_stopped_by_sigterm_exits_75_and_resumes(
    config, whole, tmp_path
):
    out = tmp_path / "run"
    overrides = {
        "data": {"source": config.data.source},
        "train": {"steps": 20_000, "checkpoint_every": 0, "eval_every": 0},
    }
    command = [sys.executable, "-m", "uets_jax", "train", "--recipe", "tiny"]
    command += ["--out", str(out), "--data.source", overrides["data"]["source"]]
    for key, value in overrides["train"].items():
        command += [f"--train.{key.replace('_', '-')}", str(value)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("step"):
            break
    process.send_signal(signal.SIGTERM)
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == 75, rest
    assert "stopped by SIGTERM" in rest
    assert "Traceback" not in rest
    assert len(list((out / "checkpoints").iterdir())) == 1


def test_a_learned_rule_reports_its_gate_and_is_charged_for_it(config, tmp_path):
    """With a decision every third step; its metrics are rows of metrics.jsonl."""
    optim = {"name": "learned", "gate_every": 3}
    loop.train(replace_from_dict(config, {"optim": optim}), tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if "gate_muon" in row]
    assert len(rows) == config.train.steps
    assert [row["taken/gate"] for row in rows][:4] == [1, 0, 0, 1]
    for row in rows:
        rules = ("adam", "muon", "lion", "momentum")
        assert sum(row[f"gate_{rule}"] for rule in rules) == pytest.approx(1, abs=1e-4)
        assert row["gate_skipped"] == row["gate_reverted"] == 0
