import json
import math
import types

import numpy as np
import pytest

from experiments import growth_policy_ladder
from experiments.growth_policy_ladder import LADDERS
from experiments.growth_policy_score import (
    best_schedule,
    case_rows,
    curve_of,
    measure_with,
    reference,
    reward,
    size_after,
)
from uets_jax.errors import UserError

STEPS = 20


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    monkeypatch.setattr(growth_policy_ladder, "step_flops", lambda ladder, size: 1000)


def record(arm="static 16", loss=3.0, flops=10_000, seed=1, **more):
    found = {
        "arm": arm,
        "track": "clean",
        "horizon": STEPS,
        "seed": seed,
        "field": "width",
        "size": 16,
        "plan": "",
        "price": None,
        "diverged": False,
        "final_loss": loss,
        "flops": {"forward_backward": flops, "evaluation": 99},
        "growth": [],
    }
    return found | more


def test_reads_the_curve_and_what_growth_did(tmp_path):
    lines = [
        {"step": 1, "loss": 6.0},
        {"step": 1, "event": "growth"},
        {"step": 2, "loss": 5.0},
        {"step": 2, "valid_loss": 5.5},
    ]
    folder = tmp_path / "rollout" / "x"
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    ops = [{"field": "heads", "size": 4}, {"field": "width", "size": 32}]
    events = [{"step": 1, "ops": ops, "why": "share 0.5 is reached", "flops": 3}]
    result = types.SimpleNamespace(summary={"growth": events})
    found = measure_with(tmp_path)("rollout/x")(result)
    assert found["curve"] == {"step": [1, 2], "loss": [6.0, 5.0]}
    assert found["growth"] == [
        {"step": 1, "size": 32, "why": "share 0.5 is reached"},
    ]
    assert size_after(events[0]) == 32
    (folder / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match="delete the run"):
        measure_with(tmp_path)("rollout/x")(result)


def test_a_curve_is_cut_to_the_constant_rate():
    config = {
        "train": {"steps": 20, "batch": 8},
        "optim": {"decay": 0.4},
        "data": {"length": 0},
        "model": {"width": 16, "context": 128},
    }
    steps = [*range(1, 21)]
    curve = {"step": steps, "loss": [10.0 - s for s in steps]}
    grown = [{"step": 5, "size": 64, "why": ""}]
    found = curve_of(record(config=config, curve=curve, growth=grown), LADDERS["width"])
    assert found.path == ((0, 0.0), (2, 5 * 1024))
    assert found.tokens.tolist() == [1024.0 * s for s in range(4, 12)]
    assert found.losses.tolist() == [10.0 - s for s in range(5, 13)]
    assert (found.end, found.final) == (20 * 1024, 3.0)


def test_the_reward_is_what_is_gained_less_what_is_spent():
    expected = math.log(1024) - 3.0 - 0.2 * 10_000 / 20_000
    assert reward(record(), 0.2) == pytest.approx(expected)


def test_the_best_schedule_depends_on_the_price():
    rows = [
        record(),
        record("fixed", 2.8, 15_000, plan="width=64:0.2"),
        record("fixed", 2.9, 12_000, plan="width=64:0.5"),
        record("fixed", 1.0, 1, plan="shorter", horizon=10),
        record("static 64", 1.0, 1, size=64),
        record("fixed", None, plan="wild", diverged=True),
    ]
    assert best_schedule(rows, 0.05, STEPS) == "width=64:0.2"
    assert best_schedule(rows, 0.8, STEPS) == "width=64:0.5"
    assert best_schedule(rows, 10.0, STEPS) == ""
    with pytest.raises(UserError, match="diverged"):
        best_schedule(rows[-1:], 0.1, STEPS)


GROWN = [{"step": 5, "size": 32}, {"step": 10, "size": 64}]


def runs():
    found = []
    for seed in (1, 2, 3):
        loss = 3.0 + 0.01 * seed
        found += [
            record(loss=loss, seed=seed),
            record("fixed", loss - 0.1, 12_000, seed, plan="a", growth=GROWN),
            record("fixed", loss, 12_000, seed, plan="b", growth=GROWN),
            record("learned", loss - 0.15, 12_000, seed, price=0.2, growth=GROWN),
            record("learned", loss, 10_000, seed, price=1.0),
            record("trigger", loss, 14_000, seed, plan="c", growth=GROWN[:1]),
        ]
    return found[::-1]


def test_rows_compare_every_arm_with_the_best_schedule():
    rows = {row["arm"]: row for row in case_rows(runs(), "a", 0.2)}
    assert {*rows} == {"static 16", "best fixed", "learned", "trigger"}
    learned, best = rows["learned"], rows["best fixed"]
    assert learned["difference"] == pytest.approx(0.05)
    assert learned["difference_low"] == pytest.approx(0.05)
    assert learned["difference_high"] == pytest.approx(0.05)
    assert learned["reward"] == pytest.approx(best["reward"] + 0.05)
    assert (best["difference"], best["plan"]) == (None, "a")
    assert (learned["lambda"], learned["seeds"], learned["horizon"]) == (0.2, 3, STEPS)
    assert (learned["stages"], learned["first_growth"]) == (2, 0.25)
    assert learned["last_growth"] == 0.5
    assert rows["static 16"]["stages"] == 0
    assert rows["static 16"]["first_growth"] is None
    assert all(np.isfinite(row["reward"]) for row in rows.values())


def test_where_no_growth_is_best_it_is_the_base():
    rows = {row["arm"]: row for row in case_rows(runs(), "", 1.0)}
    assert rows["best fixed"]["reward"] == rows["static 16"]["reward"]
    assert rows["best fixed"]["difference"] is None
    assert rows["learned"]["difference"] == pytest.approx(0.0)


def test_a_run_that_diverged_leaves_its_row_empty():
    some = runs()
    some.append(record("trigger", None, seed=4, diverged=True))
    rows = {row["arm"]: row for row in case_rows(some, "a", 0.2)}
    assert rows["trigger"]["diverged_runs"] == 1
    assert rows["trigger"]["reward"] is None
    assert rows["learned"]["reward"] is not None


def test_the_reference_is_a_run_at_the_last_size(monkeypatch):
    flops = lambda ladder, size: 10 * size
    monkeypatch.setattr(growth_policy_ladder, "step_flops", flops)
    assert reference(LADDERS["depth"], 7) == 280
