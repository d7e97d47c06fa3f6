import io

import pytest

from uets_jax.config import replace_from_dict
from uets_jax.errors import UserError
from uets_jax.measure.baseline import read_baseline, save_baseline
from uets_jax.measure.efficiency import EfficiencyMonitor
from uets_jax.report.baseline import baseline_of
from uets_jax.report.metrics import read_metrics
from uets_jax.train import start
from uets_jax.train.loop import train
from uets_jax.train.session import open_session

ENDS = ("", "_above", "_below")


@pytest.fixture(scope="module")
def undecayed(config):
    """TINY at a constant rate, so that all of it is a baseline."""
    return replace_from_dict(config, {"optim": {"schedule": "constant"}})


@pytest.fixture(scope="module")
def stored(undecayed, tmp_path_factory):
    """(folder of a finished run, file of its baseline)."""
    out = tmp_path_factory.mktemp("baseline")
    train(undecayed, out / "run")
    save_baseline(out / "b.json", baseline_of(out / "run", "b0"))
    return out / "run", out / "b.json"


def against(config, file, **rooms):
    values = {**rooms, "train": {"baseline": str(file), **rooms.get("train", {})}}
    return replace_from_dict(config, values)


def steps(out):
    return [r for r in read_metrics(out / "metrics.jsonl") if "loss" in r]


def told(out):
    records = read_metrics(out / "metrics.jsonl")
    return [r["detail"] for r in records if r.get("event") == "baseline"]


def test_a_run_is_as_far_as_its_own_baseline(undecayed, stored, tmp_path, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(start.sys, "stderr", stream)
    out = tmp_path / "run"
    result = train(against(undecayed, stored[1]), out)
    baseline = read_baseline(stored[1])
    assert baseline.train is not None
    assert baseline.valid is not None
    assert baseline.train.joules is None
    for record in steps(out):
        if "ahead_flops" in record:
            assert record["ahead_flops"] == pytest.approx(1.0, rel=1e-3)
        assert any(f"ahead_flops{end}" in record for end in ENDS)
        assert record["ahead_bytes"] == 1.0
        assert record["ahead_decays"] == 0.0
    assert "ahead_flops" in steps(out)[-1]
    valid = [r for r in read_metrics(out / "metrics.jsonl") if "bits_per_byte" in r]
    assert [r["ahead_tokens"] for r in valid] == pytest.approx([1.0, 1.0])
    assert told(out) == [f"compared with b0, undecayed, on {baseline.setting.machine}"]
    assert "1x ahead of b0, undecayed (time" in stream.getvalue()
    assert result.summary["baseline"]["name"] == "b0"
    assert "Ahead of the baseline" in (out / "report.html").read_text()
    assert "Against b0" in (out / "report.md").read_text()
    plain, ahead = steps(stored[0]), steps(out)
    assert [r["loss"] for r in plain] == [r["loss"] for r in ahead]


def test_a_resumed_run_goes_on_as_a_whole_one(undecayed, stored, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(against(undecayed, stored[1]), whole)
    short = against(undecayed, stored[1], train={"steps": 4})
    train(short, parts)
    train(against(undecayed, stored[1]), parts, resume=True, allow=["train.steps"])
    flops = lambda out: [r.get("ahead_flops") for r in steps(out)]
    assert flops(parts) == pytest.approx(flops(whole))


def test_a_baseline_may_be_named_on_resume(undecayed, stored, tmp_path):
    out = tmp_path / "run"
    short = replace_from_dict(undecayed, {"train": {"steps": 4}})
    train(short, out)
    named = against(undecayed, stored[1])
    train(named, out, resume=True, allow=["train.steps"])
    assert ["ahead_flops" in r for r in steps(out)] == [False] * 4 + [True] * 4


def test_another_text_is_told_once_and_not_compared(undecayed, stored, tmp_path):
    other = against(undecayed, stored[1], data={"valid_fraction": 0.2})
    result = train(replace_from_dict(other, {"train": {"steps": 2}}), tmp_path / "run")
    assert told(tmp_path / "run") == ["not comparable with b0: another text"]
    assert not any("ahead" in key for r in steps(tmp_path / "run") for key in r)
    assert "baseline" not in result.summary


def test_without_a_baseline_nothing_is_said(stored):
    run, _ = stored
    records = read_metrics(run / "metrics.jsonl")
    assert not any("ahead" in key for r in records for key in r)
    assert told(run) == []


def test_a_missing_baseline_ends_the_run_before_it_starts(config):
    with pytest.raises(UserError, match=r"train.baseline: .*absent.json"):
        open_session(against(config, "absent.json"))


def test_the_monitor_asks_what_the_trigger_asks(config, tmp_path):
    """Fed with the metrics of a run, it answers as `growth.method` trigger decided."""
    growing = replace_from_dict(
        config,
        {
            "growth": {
                "method": "trigger",
                "plan": "depth=3:0.95",
                "slope": 4.0,
                "every": 0.125,
                "earliest": 0.25,
            }
        },
    )
    train(growing, tmp_path / "run")
    monitor, asked = EfficiencyMonitor(threshold=4.0), []
    for record in read_metrics(tmp_path / "run" / "metrics.jsonl"):
        if "decision" in record:
            asked.append((bool(record["taken"]), monitor.bottleneck_detected()))
        monitor.observe(record)
    assert len(asked) > 1
    assert {taken for taken, _ in asked} == {False, True}
    assert all(taken == found for taken, found in asked)
