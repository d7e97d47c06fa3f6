import dataclasses
import json

import pytest

from uets_jax.errors import UserError
from uets_jax.measure.ahead import Baseline, Curve, Setting
from uets_jax.measure.baseline import (
    read_baseline,
    save_baseline,
    train_curve,
    undecayed,
    valid_curve,
)

SETTING = Setting("corpus", "tokenizer", "cpu-2", 128, 0, 0.0, True)
CURVE = Curve((4.0, 2.0), (1e9, 1e10), (10.0, 100.0), (1.0, 2.0), None)
BASELINE = Baseline("b2m", SETTING, 1000, CURVE, None)


def step(number, loss, rate=0.02, **more):
    costs = {"tokens": 10 * number, "flops": 1000 * number, "seconds": 0.1 * number}
    return {"step": number, "loss": loss, "learning_rate": rate, **costs, **more}


def valid(number, bits):
    return {"step": number, "bits_per_byte": bits, "tokens": 10 * number, "flops": 1}


RECORDS = [
    step(1, 4.0, rate=0.01),
    step(2, 3.0),
    step(3, 2.0),
    {"step": 3, "event": "growth", "flops": 9},
    {**valid(3, 2.5), "flops": 3000},
    step(4, 1.0, rate=0.01),
    {**valid(4, 1.5), "flops": 4000},
]


def test_what_follows_the_first_decay_is_left_out():
    assert undecayed(RECORDS) == RECORDS[:5]
    assert undecayed([]) == []


def test_the_curves_fall_while_costs_rise():
    curve = train_curve(undecayed(RECORDS))
    assert curve is not None
    assert curve.quality[0] == 4.0
    assert all(a > b for a, b in zip(curve.quality, curve.quality[1:], strict=False))
    assert all(a < b for a, b in zip(curve.seconds, curve.seconds[1:], strict=False))
    assert curve.joules is None
    assert valid_curve(undecayed(RECORDS)) is None  # one point is no curve
    found = valid_curve(RECORDS)
    assert found == Curve((2.5, 1.5), (3000.0, 4000.0), (30.0, 40.0))


def test_a_skipped_step_counts_for_nothing():
    skipped = [*RECORDS[:2], step(3, 99.0, skipped=1.0), *RECORDS[2:]]
    assert train_curve(skipped) == train_curve(RECORDS)


def test_a_file_holds_the_same_baseline(tmp_path):
    save_baseline(tmp_path / "new" / "b2m.json", BASELINE)
    assert read_baseline(tmp_path / "new" / "b2m.json") == BASELINE


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"train.baseline: .*absent.json: No such"):
        read_baseline(tmp_path / "absent.json")


def broken():
    whole = dataclasses.asdict(BASELINE)
    yield "[1"
    yield json.dumps([])
    yield json.dumps({**whole, "train": None, "more": 1})
    yield json.dumps({**whole, "setting": {}})
    yield json.dumps({**whole, "train": {**whole["train"], "quality": [1, 2]}})
    yield json.dumps({**whole, "train": {**whole["train"], "flops": [1]}})
    yield json.dumps({**whole, "train": {**whole["train"], "flops": [0, 1]}})
    yield json.dumps({**whole, "train": {**whole["train"], "seconds": "ab"}})


@pytest.mark.parametrize("text", [*broken()])
def test_a_file_that_is_no_baseline_is_refused(text, tmp_path):
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(UserError, match="uets baseline RUN"):
        read_baseline(tmp_path / "b.json")
