import math
from pathlib import Path

import pytest

from experiments import dynamic_rows as rows
from experiments.dynamic_plan import Arm, Options, configure
from experiments.dynamic_times import key
from experiments.records import write_record
from uets_jax.config import to_dict

CONFIG = configure(Options(Path("stores")), Arm("x", 1), 1e5, 1)
DEEP = configure(Options(Path("stores")), Arm("x", 4), 1e5, 1)
TIMES = {key(CONFIG.model): 1.0, key(DEEP.model): 2.0}
DEEPER = [{"field": "depth", "size": 4}]


def run(arm, share, seed, bits, table="final", **more):
    """A finished run whose FLOPs are 100 for each share of the steps."""
    record = {
        "table": table,
        "arm": arm,
        "share": share,
        "seed": seed,
        "bits_per_byte": bits,
        "tokens_per_param": 3,
        "rate": 0.01,
        "plan": "depth=4:0.5" if arm.startswith("grow") else "",
        "how": "identity",
        "slope_threshold": 0.3,
        "steps": round(100 * share),
        "tokens": round(1000 * share),
        "params": 10,
        "final_params": 10,
        "flops": {"forward_backward": 90 * share, "optimizer": 10 * share},
        "seconds": {"train": 2.0 * share, "data": 0.5 * share, "compile": 7.0},
        "diverged": False,
        "growth": [],
        "phases": [{"seconds_per_step": 0.1}],
        "losses": [3.0] * 100,
        "config": to_dict(CONFIG if arm.startswith("grow") else DEEP),
    }
    record["flops"]["evaluation"] = 1e9
    return record | more


def static(*bits):
    return [run("static", 1.0, seed, b) for seed, b in enumerate(bits, 1)]


def grown(low, high):
    event = {"step": 30, "ops": DEEPER, "loss_before": 2.0, "loss_after": 2.0}
    return [
        run("grow_fixed", share, seed, bits, growth=[event])
        for seed in (1, 2, 3)
        for share, bits in ((0.4, low), (0.9, high))
    ]


def test_evaluations_are_no_cost():
    one = run("static", 2.0, 1, 2.0)
    assert rows.flops(one) == 200


def test_the_fraction_is_the_budget_at_which_the_target_is_reached():
    records = [*static(2.0, 2.0, 2.0), *grown(2.2, 1.8)]
    made = {r["arm"]: r for r in rows.target_rows(records, TIMES)}
    fraction = made["grow_fixed"]["flops_fraction_static"]
    # halfway in loss is about halfway in log budget
    assert fraction == pytest.approx(math.sqrt(0.4 * 0.9), rel=0.01)
    assert made["grow_fixed"]["missed"] == 0
    assert made["static"]["flops_fraction_static"] == 1
    assert made["grow_fixed"]["default"]
    assert made["grow_fixed"]["grown_at"] == "0.33"


def test_a_curve_that_does_not_reach_the_target_says_so():
    records = [*static(1.0, 1.0, 1.0), *grown(2.2, 1.8)]
    made = {r["arm"]: r for r in rows.target_rows(records, TIMES)}
    assert made["grow_fixed"]["missed"] == 1
    assert made["grow_fixed"]["flops_fraction_static"] is None
    assert made["grow_fixed"]["flops_fraction_static_ci_low"] > 0.899


def test_the_interval_holds_the_noise_of_both():
    noisy = [*static(1.9, 2.0, 2.1), *grown(2.2, 1.8)]
    made = {r["arm"]: r for r in rows.target_rows(noisy, TIMES)}["grow_fixed"]
    low = made["flops_fraction_static_ci_low"]
    high = made["flops_fraction_static_ci_high"]
    assert low < made["flops_fraction_static"] < high
    assert high - low > 0.05


def test_the_best_static_size_is_what_the_others_are_held_against():
    small = [
        run("static 1", share, seed, bits)
        for seed in (1, 2, 3)
        for share, bits in ((0.2, 2.2), (0.4, 1.9))
    ]
    made = {
        r["arm"]: r
        for r in rows.target_rows(
            [*static(2.0, 2.0, 2.0), *small, *grown(2.2, 1.8)], TIMES
        )
    }
    best = made["static 1"]["flops_to_target"]
    assert best < 40
    over = made["grow_fixed"]["flops_fraction_static_best"]
    assert over == pytest.approx(made["grow_fixed"]["flops_to_target"] / best)


def test_equal_tokens_are_compared_seed_by_seed():
    equal = [run("grow_fixed", 1.0, seed, 1.98) for seed in (1, 2)]
    [_, row] = rows.target_rows([*static(2.0, 2.0), *equal], TIMES)
    assert row["loss_over_static"] == pytest.approx(0.99)


def test_moments_are_held_against_those_that_were_carried():
    event = [{"step": 10, "ops": [], "loss_before": 3.0, "loss_after": 3.0}]
    spike = [3.0] * 10 + [4.0] * 5 + [3.0] * 85
    records = [
        run(f"adamw {how}", 1.0, seed, bits, "moments", growth=event, losses=losses)
        for seed in (1, 2)
        for how, bits, losses in (("carry", 2.0, [3.0] * 100), ("reset", 2.1, spike))
    ]
    [carry, reset] = rows.moment_rows(records)
    assert carry["loss_after_20"] == 0
    assert reset["loss_after_5"] == 1.0
    assert reset["loss_after_20"] == pytest.approx(0.25)
    assert reset["worst_step"] == 1.0
    assert reset["difference"] == pytest.approx(0.1)


def test_pruning_is_held_against_the_model_that_was_not_pruned():
    less = [{"field": "depth", "size": 1}]
    event = [{"step": 70, "ops": less, "loss_before": 3.0, "loss_after": 3.5}]
    records = [
        run("static", 1.0, 1, 2.0, "prune"),
        run("static", 1.0, 2, 2.1, "prune"),
        run("layers 4 -> 2", 1.0, 1, 2.2, "prune", growth=event),
        run("layers 4 -> 2", 1.0, 2, 2.3, "prune", growth=event),
    ]
    [base, pruned] = rows.prune_rows(records, TIMES)
    assert base["difference"] == 0
    assert pruned["difference"] == pytest.approx(0.2)
    assert pruned["jump"] == 0.5
    assert pruned["tokens_per_second"] == pytest.approx(2 * base["tokens_per_second"])


def test_experts_are_given_the_dense_models_loss_as_target():
    records = [
        run(arm, share, seed, bits, "moe", router_load_max=0.3, router_dropped=0.1)
        for seed in (1, 2)
        for arm, share, bits in (
            ("dense", 1.0, 2.0),
            ("4 experts", 0.5, 2.0),
            ("4 experts", 1.0, 1.8),
        )
    ]
    dense, experts = rows.moe_rows(records)
    assert dense["tokens_ratio_dense"] == pytest.approx(1)
    assert experts["tokens_ratio_dense"] == pytest.approx(2)
    assert experts["router_load_max"] == 0.3


def test_events_name_what_changed_and_what_it_cost():
    event = {
        "step": 50,
        "ops": [{"field": "depth", "size": 8}],
        "exact": True,
        "loss_before": 3.0,
        "loss_after": 3.0,
        "params": 20,
        "step_flops_before": 1.0,
        "step_flops": 2.0,
    }
    phases = [{"seconds_per_step": 0.1}, {"seconds_per_step": 0.2}]
    [growth, whole] = rows.event_rows(
        [run("4 to 12", 1.0, 1, 2.0, "events", growth=[event], phases=phases)]
    )
    assert growth["change"] == "depth=8"
    assert growth["step_seconds"] == 0.2
    assert whole["seconds_with_compilation"] == whole["seconds_without_compilation"] + 7


def test_all_tables_can_be_written(tmp_path):
    records = [*static(2.0, 2.0), *grown(2.2, 1.8)]
    records += [run("static", 1.0, 0, 2.0, "trial")]
    found = rows.tables(records, ["target"], TIMES)
    assert [*found] == ["target", "target_trials", "target_runs"]
    for name, made in found.items():
        place = f"growth.{name}"
        path = write_record(place, made, "x", {}, rows.NOTES[name], out=tmp_path)
        assert path.name == f"{place}.json"
    assert [row["arm"] for row in found["target_trials"]] == ["static"]
    assert found["target_trials"][0]["flops_share"] == 1
    assert len(found["target_runs"]) == len(records) - 1
    assert found["target_runs"][0]["total_flops"] == 100


def test_the_curve_of_moments_is_the_mean_gap_to_carry():
    event = [{"step": 0, "ops": DEEPER, "loss_before": 2.0, "loss_after": 2.0}]
    many = lambda arm, loss: [
        run(arm, 0.5, s, 2.0, "moments", losses=[loss + s] * 100, growth=event)
        for s in (1, 2)
    ]
    found = rows.moment_curves([*many("muon carry", 3.0), *many("muon reset", 3.25)])
    assert {row["arm"] for row in found} == {"muon reset"}
    assert [row["step"] for row in found] == [*range(5, 101, 5)]
    assert {row["gap"] for row in found} == {0.25}
    assert {row["seeds"] for row in found} == {2}
