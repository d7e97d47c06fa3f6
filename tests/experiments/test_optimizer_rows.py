import math
from unittest.mock import ANY

import pytest

from experiments import optimizer_rows
from experiments.optimizer_rows import (
    compare_rows,
    curve_of,
    lost,
    robustness_rows,
    run_rows,
    trial_rows,
    untuned_rows,
)

MODEL = {"width": 32, "depth": 2, "vocab": 1024}
CONFIG = {"model": MODEL, "data": {"source": "tokens:a/clean.b"}}


def record(arm, bits, share=1.0, seed=1, stage="final", **more):
    return {
        "task": "narrow",
        "arm": arm,
        "rule": more.pop("rule", arm),
        "stage": stage,
        "share": share,
        "seed": seed,
        "settings": {"learning_rate": 0.01},
        "bits_per_byte": bits,
        "diverged": bits is None,
        "steps": round(120 * share),
        "final_train_loss": 3.0,
        "params": 1000,
        "flops": {"model": 10.0, "evaluation": 5.0},
        "config": CONFIG,
        **more,
    }


def runs():
    """AdamW needs 120 steps; Muon 80, the learned rule 60, both exactly, plus noise
    that is the same for all rules of a seed.
    """
    found = []
    for seed, noise in ((1, 0.01), (2, -0.02), (3, 0.0)):
        loss = lambda steps, n=noise: 9.0 - math.log(steps) + n
        found.append(record("adamw", loss(120), 1.0, seed))
        for arm, speed in (("muon", 1.5), ("learned", 2.0)):
            for share in (0.35, 0.5, 0.7, 1.0):
                bits = loss(speed * round(120 * share))
                found.append(record(arm, bits, share, seed))
        found += [record("sgd", 19.0 - s, s, seed) for s in (1.4, 2.0)]
    return found


TIMES = {("narrow", "adamw"): [0.1] * 3, ("narrow", "muon"): [0.11] * 3}
TIMES |= {("narrow", "learned"): [0.11, 0.12, 0.13], ("narrow", "sgd"): [0.1] * 3}


def test_ratios_of_steps_and_seconds():
    searched = {("narrow", "muon"): {"edges": "learning_rate"}}
    rows = {r["arm"]: r for r in compare_rows(runs(), TIMES, searched, 1000.0)}
    assert rows["adamw"]["steps_ratio_adamw"] == 1.0
    assert [rows[arm]["seeds"] for arm in ("adamw", "muon", "sgd")] == [3, 3, 3]
    assert rows["muon"]["steps_ratio_adamw"] == pytest.approx(1.5, rel=0.01)
    assert rows["learned"]["steps_ratio_adamw"] == pytest.approx(2.0, rel=0.01)
    assert rows["learned"]["steps_ratio_muon"] == pytest.approx(2 / 1.5, rel=0.01)
    seconds = rows["learned"]["seconds_ratio_adamw"]
    assert seconds == pytest.approx(2.0 * 0.1 / 0.12, rel=0.01)
    low = rows["learned"]["seconds_ratio_adamw_ci_low"]
    steps = rows["learned"]["steps_ratio_adamw_ci_low"]
    assert low == pytest.approx(steps * 0.1 / 0.13)  # the slowest round
    assert rows["muon"]["edges"] == "learning_rate"
    low = rows["learned"]["steps_ratio_muon_ci_low"]
    assert low == pytest.approx(2 / 1.5, rel=0.05)  # what a seed does cancels
    assert rows["learned"]["difference_muon"] == pytest.approx(-math.log(2 / 1.5))
    assert rows["learned"]["steps_to_muon"] == pytest.approx(120 * 1.5 / 2, rel=0.01)
    saved = (2 / 1.5 * 0.11 / 0.12 - 1) * 90 * 0.12 * 2
    assert rows["learned"]["break_even_runs"] == pytest.approx(1000 / saved, rel=0.02)
    assert rows["muon"]["break_even_runs"] is None


def test_a_rule_that_never_gets_there_has_no_ratio():
    rows = {r["arm"]: r for r in compare_rows(runs(), TIMES, {})}
    assert rows["sgd"]["steps_to_adamw"] is None
    assert rows["sgd"]["steps_ratio_adamw"] is None
    assert rows["sgd"]["steps_ratio_adamw_ci_high"] < 1.0  # but a bound
    assert rows["sgd"]["bits_per_byte_equal_steps"] is None


def test_seeds_without_every_budget_are_left_out():
    mine = [record("muon", 2.0, 0.5, 1), record("muon", 1.0, 1.0, 1)]
    pilot = [record("muon", 3.0, 0.25, 1), record("muon", 2.1, 0.5, 2)]
    both = curve_of([*mine, *pilot, record("muon", 1.1, 1.0, 2)])
    assert (both.seeds, list(both.budgets)) == ((1, 2), [60, 120])
    assert curve_of([*mine, record("muon", None, 1.0, 1)]).seeds == (1,)
    assert curve_of(mine[:1]) is None
    nothing = [record("muon", None, 0.5), record("muon", None, 1.0)]
    assert curve_of(nothing) is None


def test_trials_and_runs_are_all_listed():
    trial = record("muon", None, stage="trial")
    assert trial_rows([trial, *runs()]) == [
        {
            "task": "narrow",
            "arm": "muon",
            "settings": "learning_rate=0.01",
            "bits_per_byte": None,
            "diverged": True,
            "settings_hash": ANY,
            "commit": None,
        }
    ]
    rows = run_rows([trial, *runs()])
    assert len(rows) == len(runs())
    assert rows[0]["total_flops"] == 10.0


def test_a_run_that_ends_above_equal_odds_is_lost():
    assert lost(record("muon", None))
    assert lost(record("muon", 5.0, final_train_loss=math.log(1024) + 0.01))
    assert not lost(record("muon", 5.0, final_train_loss=6.9))


def test_robustness_is_relative_to_the_same_change():
    more = {"stage": "robust", "condition": "batch", "factor": 4.0}
    records = [
        record("adamw", 2.0, **more),
        record("muon", 1.8, **more),
        record("learned", None, **more),
    ]
    rows = {r["arm"]: r for r in robustness_rows(records)}
    assert rows["muon"]["ratio_adamw"] == pytest.approx(0.9)
    assert rows["learned"]["diverged"] == 1.0
    assert rows["learned"]["ratio_adamw"] is None


def test_untuned_over_tuned():
    mine = [
        record("usual", 2.2, stage="untuned", rule="adamw"),
        record("adamw", 2.0),
        record("adamw", 9.0, seed=7),  # another seed: not compared
    ]
    row = untuned_rows(mine)[0]
    assert row["over_own_tuned"] == pytest.approx(1.1)
    assert row["over_tuned_adamw"] == pytest.approx(1.1)


def test_every_table_has_a_note():
    names = {"compare", "trials", "runs", "robustness", "untuned"}
    assert {*optimizer_rows.NOTES} == names
