import math

import pytest

from experiments.bench_arms import Rung
from experiments.bench_rows import Line, against, ladder_rows, named, targets
from uets_jax.errors import UserError

BUDGETS = (0.125, 0.25, 0.5, 1.0)


def line(
    arm: str, speed: float, track: str = "clean", mode: str = "", **fields
) -> Line:
    """Bits per byte 2 - 0.1 log2(speed * budget); a seed shifts them all."""
    bits = lambda b, seed: 2 - 0.1 * math.log2(speed * b) + 0.001 * (seed - 2)
    runs = {
        (b, seed): {
            "bits_per_byte": bits(b, seed),
            "blimp_accuracy": 0.5 + 0.01 * b,
            "lambada_dev_bits_per_byte": 3.0,
            **fields,
        }
        for b in BUDGETS
        for seed in (1, 2, 3)
    }
    spent = {
        "flops": {b: 1e12 * b for b in BUDGETS},
        "tokens": {b: 1e6 * b for b in BUDGETS},
        "seconds": {b: 100 * b for b in BUDGETS},
    }
    return Line(arm, track, mode, runs, spent, 2.0, 10**6)


def test_an_arm_that_is_four_times_as_fast_says_so():
    known = [line("b0", 1), line("b2", 2), line("b2m", 2.5)]
    row = against(known, line("uets", 8))
    assert row["flops_ratio_b0"] == pytest.approx(8, rel=1e-6)
    assert row["tokens_ratio_b0"] == pytest.approx(8, rel=1e-6)
    assert row["flops_ratio_b2m"] == pytest.approx(3.2, rel=1e-3)
    assert row["flops_ratio_b2"] is None  # which does not reach T2 with U
    assert row["flops_ratio_b2_ci_low"] == pytest.approx(3.2, rel=1e-3)
    assert row["flops_ratio_b0_t_low"] == pytest.approx(8, rel=1e-3)
    assert row["joules_ratio_b0"] is None
    assert row["loss_at_equal_flops"] == pytest.approx(2 - 0.1 * 3)
    assert row["t2_arm"] == "b2m"


def test_a_target_below_every_budget_leaves_a_lower_bound():
    row = against([line("b0", 1), line("b2m", 2)], line("uets", 64))
    assert row["flops_ratio_b0"] is None
    assert row["flops_ratio_b0_ci_low"] == pytest.approx(8)
    assert row["flops_ratio_b0_ci_high"] is None


def test_the_yardstick_on_mixture_is_b3_in_the_same_mode():
    known = [line("b0", 1, "mixture"), line("b2m", 4, "mixture")]
    known += [line("b3", 8, "mixture", "target"), line("b3", 5, "mixture", "blind")]
    found = targets(known)
    assert found["mixture", "target"] == pytest.approx((2.0, 1.7))
    assert found["mixture", "blind"][1] == pytest.approx(2 - 0.1 * math.log2(5))
    row = against(known, line("uets", 16, "mixture", "blind"))
    assert row["flops_ratio_b3"] == pytest.approx(3.2, rel=1e-3)
    assert row["t2_arm"] == "b3"
    assert found["mixture", ""] == found["mixture", "blind"]


def test_quality_is_read_where_the_target_is_reached():
    row = against([line("b0", 1), line("b2m", 2)], line("uets", 7))
    assert row["quality_at_units"] == 0.5
    assert row["blimp_accuracy"] == pytest.approx(0.505)
    assert row["blimp_accuracy_baseline"] == pytest.approx(0.51)


def test_control_and_statistics_are_shares_of_the_flops():
    flops = {"forward_backward": 90, "scoring": 4, "statistics": 6, "evaluation": 50}
    row = against([line("b0", 1), line("b2m", 2)], line("uets", 7, flops=flops))
    assert row["control_fraction"] == pytest.approx(0.04)
    assert row["statistics_flops"] == 6


def test_who_reads_all_text_has_no_ratio_of_tokens():
    known = [line("b0", 1), line("b2m", 2)]
    rungs = [Rung("x", "clean", "", "b2m", parts) for parts in ((), ("start",))]
    *_, plain, reader = ladder_rows(known, [(r, line("x", 4)) for r in rungs])
    assert plain["tokens_ratio_b0"] is not None
    assert reader["tokens_ratio_b0"] is reader["tokens_ratio_b0_ci_low"] is None
    assert reader["reads_all_text"]
    assert not plain["reads_all_text"]


def test_the_ratio_to_the_best_tuned_arm_is_at_what_that_reaches():
    known = [line("b0", 1), line("b2m", 2)]
    ours = [(Rung(n, "clean"), line(n, s)) for n, s in (("b2m + start", 4), ("x", 8))]
    *_, best, row = ladder_rows(known, ours)
    assert best["flops_ratio_tuned"] == pytest.approx(1.0)
    assert row["flops_ratio_tuned"] == pytest.approx(2.0, rel=1e-3)
    assert ladder_rows(known, ours[1:])[-1]["flops_ratio_tuned"] is None


def test_a_ratio_without_a_value_has_no_t_interval():
    row = against([line("b0", 1), line("b2m", 2)], line("x", 64))
    assert row["flops_ratio_b0"] is None
    assert row["flops_ratio_b0_ci_low"] > 1
    assert row["flops_ratio_b0_t_low"] is row["flops_ratio_b0_t_high"] is None


def test_the_smallest_budget_is_told_with_its_loss():
    known = [line("b0", 1), line("b2m", 2)]
    [*_, row] = ladder_rows(known, [(Rung("x", "clean"), line("x", 4))])
    assert row["least_units"] == 0.125
    assert row["bits_per_byte_least"] == row["bits_per_byte_u0.125"]


def test_a_diverged_run_takes_its_budget_away():
    arm = line("uets", 8)
    arm.runs[0.25, 2]["bits_per_byte"] = None
    assert arm.budgets == (0.125, 0.5, 1.0)
    known = [line("b0", 1), line("b2m", 2)]
    rung = Rung("uets", "clean", "", "b2m", ("start",))
    [*_, row] = ladder_rows(known, [(rung, arm)])
    assert row["diverged_runs"] == 1
    assert row["bits_per_byte_u0.25"] is None
    assert row["bits_per_byte_u0.5"] == pytest.approx(2 - 0.1 * 2)
    assert row["parts"] == "start"


def test_an_arm_that_is_not_there_is_named():
    with pytest.raises(UserError, match="b3: not on record"):
        named([line("b0", 1)], "b3")
