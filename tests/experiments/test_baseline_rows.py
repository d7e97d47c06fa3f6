import math
from typing import NamedTuple

import pytest

from experiments.baseline_plan import Choice, Row
from experiments.baseline_rows import (
    Arm,
    arms_of,
    baseline_rows,
    final_rows,
    run_row,
    step_key,
    targets,
    tuning,
    tuning_rows,
)
from experiments.foundation import training_flops
from experiments.step_times import StepTime
from uets_jax.errors import UserError

SETTINGS = (("learning_rate", 0.01), ("batch", 8))
SEEDS = (1, 2, 3)
UNIT = 10**12


def law(flops):
    """Bits per byte of the base after so many FLOPs."""
    return 1.5 + 2.0 * (flops / UNIT) ** -0.3 / 3


def record(arm, budget, seed, bits, stage="final", **more):
    """What the runner leaves of a run; each step is 10^9 FLOPs and 100 tokens."""
    flops = int(budget * UNIT)
    return {
        "name": f"{arm} {budget} {seed}",
        "stage": stage,
        "arm": arm,
        "seed": seed,
        "budget_units": budget,
        "diverged": False,
        "bits_per_byte": bits,
        "steps": flops // 10**9,
        "tokens": flops // 10**7,
        "params": 7,
        "flops": {"forward_backward": flops - 5, "optimizer": 5, "evaluation": 99},
        "seconds": {"train": 3.0, "eval": 1.0},
        "config": {},
        "config_hash": "",
        "versions": {},
        "blimp_accuracy": 0.5 + seed / 100,
        **more,
    }


def arm(name, factor=1.0, track="clean", mode="", step_seconds=0.01, statistics=0):
    """An arm that needs `factor` times less; a seed shifts all arms alike."""
    budgets = (0.25, 0.5, 1.0)
    runs = {
        (b, s): record(name, b, s, law(factor * b * UNIT) + 0.001 * s)
        for b in budgets
        for s in SEEDS
    }
    row = Row(name, track, mode, track, Choice(name, 2, SETTINGS))
    return Arm(row, runs, StepTime(step_seconds, 2.0, 10**6), statistics)


def test_an_arm_that_needs_half_of_everything_has_a_ratio_of_two():
    rows = baseline_rows([arm("b0"), arm("b2", 2.0, step_seconds=0.02)])
    base, half = rows
    assert base["flops_ratio_b0"] == pytest.approx(1.0)
    for currency in ("flops", "tokens"):
        assert half[f"{currency}_ratio_b0"] == pytest.approx(2.0, rel=1e-6)
        assert half[f"{currency}_ratio_b0_ci_low"] <= 2.0 + 1e-6
        assert half[f"{currency}_ratio_b0_t_high"] >= 2.0 - 1e-6
    assert half["seconds_ratio_b0"] == pytest.approx(1.0, rel=1e-6)
    with_compilation = (1000 * 0.01 + 2) / (500 * 0.02 + 2)
    assert half["seconds_ratio_b0_with_compilation"] == pytest.approx(with_compilation)
    assert half["t1_bits_per_byte"] == pytest.approx(law(UNIT) + 0.002)
    assert half["flops_to_t1"] == pytest.approx(UNIT / 2)
    assert half["b0_bits_per_byte_at_equal_tokens"] == half["t1_bits_per_byte"]
    assert half["t1_bracketed_within_2x"]
    assert half["total_flops"] == UNIT
    assert half["joules"] is None


def test_an_arm_out_of_reach_has_no_ratio_but_a_bound():
    rows = baseline_rows([arm("b0"), arm("b1", 100.0)])
    assert rows[1]["flops_ratio_b0"] is None
    assert rows[1]["flops_ratio_b0_ci_high"] is None
    assert rows[1]["flops_ratio_b0_ci_low"] == pytest.approx(4.0)
    assert not rows[1]["t1_bracketed_within_2x"]


def test_uniform_is_b2_on_the_whole_pool():
    pool = [arm("b0", track="mixture"), arm("b2", 2.0, "mixture")]
    rows = baseline_rows(pool)
    assert [row["arm"] for row in rows] == ["b0", "b2", "uniform"]
    assert rows[2] == {**rows[1], "arm": "uniform"}


def test_cleaning_is_charged_to_every_run():
    free, charged = (
        baseline_rows([arm("b0"), arm("b3", 2.0, statistics=n)])[1]
        for n in (0, UNIT // 10)
    )
    assert charged["total_flops"] == UNIT + UNIT // 10
    assert charged["flops_to_t1"] == pytest.approx(free["flops_to_t1"] * 1.2, rel=0.01)
    assert charged["tokens_ratio_b0"] == free["tokens_ratio_b0"]


def test_the_interval_of_bits_is_students():
    row = baseline_rows([arm("b0")])[0]
    half = 4.303 * 0.001 / math.sqrt(3)
    assert row["bits_per_byte_ci_high"] - row["bits_per_byte"] == pytest.approx(
        half, rel=1e-3
    )
    assert row["blimp_accuracy"] == pytest.approx(0.52)
    assert row["lambada_dev_bits_per_byte"] is None


def test_t2_is_the_better_one_on_clean_and_every_mode_of_b3_on_mixture():
    clean = [arm("b0"), arm("b2", 2.0), arm("b2m", 3.0)]
    pool = [
        arm("b0", track="mixture"),
        arm("b2", 2.0, "mixture"),
        arm("b3", 4.0, "mixture", "target"),
        arm("b3", 3.0, "mixture", "blind"),
    ]
    found = targets([*clean, *pool])
    told = [(t["target"], t["track"], t["arm"], t["mode"]) for t in found]
    assert told == [
        ("T1", "clean", "b0", None),
        ("T2", "clean", "b2m", None),
        ("T1", "mixture", "b0", None),
        ("T2", "mixture", "b3", "target"),
        ("T2", "mixture", "b3", "blind"),
    ]
    assert found[1]["bits_per_byte"] == pytest.approx(law(3.0 * UNIT) + 0.002)


def test_rows_of_runs_are_flat_and_leave_evaluation_out():
    one = record("b0", 0.5, 1, 2.0, learning_rate=0.01)
    assert training_flops(one) == UNIT // 2
    row = run_row(one)
    assert row["total_flops"] == UNIT // 2
    assert row["train_seconds"] == 3.0
    assert row["optimizer_flops"] == 5
    assert row["learning_rate"] == 0.01
    assert not any(isinstance(value, dict | list) for value in row.values())


def test_trials_and_final_runs_part_and_a_diverged_trial_is_kept():
    diverged = record("b1", 0.25, 0, None, "tune", diverged=True)
    del diverged["flops"], diverged["seconds"]
    results = {"a": record("b0", 1.0, 1, 2.0), "b": diverged}
    assert [row["arm"] for row in final_rows(results)] == ["b0"]
    [trial] = tuning_rows(results)
    assert trial["diverged"]
    assert trial["bits_per_byte"] is None


def test_steps_are_timed_once_per_recipe_depth_and_batch():
    assert step_key(arm("b2").row) == "b2_d2_b8"


def test_a_seed_with_a_diverged_run_is_in_no_figure(monkeypatch):
    class Job(NamedTuple):
        name: str
        labels: tuple

    row = arm("b0").row
    runs = {
        (b, s): record("b0", b, s, law(b * UNIT)) for b in (0.5, 1.0) for s in SEEDS
    }
    runs[0.5, 2] |= {"bits_per_byte": None, "diverged": True}
    results = {r["name"]: {**r, "recipe": "b0", "text": "clean"} for r in runs.values()}
    keys = [(("budget_units", b), ("seed", s)) for b, s in runs]
    jobs = [Job(r["name"], k) for r, k in zip(runs.values(), keys, strict=True)]

    class Plan:
        rows = staticmethod(lambda results, jobs: [row])
        finals = staticmethod(lambda row, rows, results: jobs)

    times = {"b0_d2_b8": StepTime(0.01, 2.0, None)}
    [found] = arms_of(Plan(), results, times, {})
    assert found.seeds == (1, 3)
    assert baseline_rows([found])[0]["diverged_seeds"] == 1
    for one in results.values():
        one["diverged"] = True
    with pytest.raises(UserError, match="clean/b0: a run of every seed diverged"):
        arms_of(Plan(), results, times, {})


def test_tuning_is_charged_to_the_recipe_on_the_texts_of_its_row():
    trial = lambda text, recipe="b2": {
        **record("b2", 0.5, 0, 2.0, "tune"),
        "recipe": recipe,
        "text": text,
    }
    texts = ["clean", "mixture", "b3.blind.0.1", "b3.blind.0.2", "b3.target.0.1"]
    results = {text: trial(text) for text in texts} | {"other": trial("clean", "b0")}
    of = lambda track, text: tuning(
        Row("x", track, "", text, Choice("b2", 1, SETTINGS)), results
    )
    assert of("clean", "clean") == (1, UNIT // 2)
    assert of("mixture", "mixture") == (2, UNIT)
    assert of("mixture", "b3.blind.0.2") == (3, 3 * UNIT // 2)
