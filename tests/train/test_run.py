import dataclasses
import json

import pytest

from uets_jax.config import replace_from_dict, to_dict
from uets_jax.report.metrics import read_metrics
from uets_jax.train.loop import train
from uets_jax.train.run import Position


@pytest.fixture(scope="module")
def config(config):
    return replace_from_dict(config, {"train": {"steps": 4}})


def test_a_position_survives_json():
    at = Position(step=3, passed_over=2, chain="ab", streak=1)
    at.counts["rollbacks"] = 4
    stored = json.loads(json.dumps(dataclasses.asdict(at)))
    assert Position(**stored).counts["rollbacks"] == 4
    assert Position().counts == {"resumes": 0, "rollbacks": 0, "skipped_steps": 0}
    assert dataclasses.asdict(Position(**stored))["passed_over"] == 2


def test_a_record_holds_all_that_a_resume_needs(config, tmp_path):
    result = train(config, tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "00000004" / "record.json"
    record = json.loads(path.read_text())
    assert record["step"] == record["next_batch"] == 4
    assert record["position"]["chain"] == result.summary["data_sha256"]
    assert record["position"]["last_loss"] == result.summary["final_train_loss"]
    for key in ("flops", "matmul_flops", "transcendentals", "tokens"):
        assert record["ledger"][key] == result.summary[key], key
    assert record["overrides"] == []
    assert to_dict(result.config)["train"]["steps"] == 4


def test_the_ledger_of_a_resumed_run_goes_on(config, tmp_path):
    """Seconds, too: the parts before a resume are in them."""
    short, out = replace_from_dict(config, {"train": {"steps": 2}}), tmp_path / "run"
    first = train(short, out).summary
    path = out / "checkpoints" / "00000002" / "record.json"
    stored = json.loads(path.read_text())["ledger"]["seconds"]
    second = train(config, out, resume=True, allow=("train.steps",)).summary
    assert second["tokens"] == 2 * first["tokens"]
    twice = 2 * first["flops"]["forward_backward"]
    assert second["flops"]["forward_backward"] == twice
    assert second["seconds"]["train"] > stored["train"] > 0
    assert second["resumes"] == 1
    spent = [r["flops"] for r in read_metrics(out / "metrics.jsonl") if "loss" in r]
    assert spent == [spent[0] * n for n in (1, 2, 3, 4)]
