import math
from pathlib import Path

import numpy as np
import pytest

from experiments import arms
from experiments.aql_plan import AqlPlan, Options, main_arms, part_arms
from experiments.aql_rows import (
    Runs,
    mixture_rows,
    offers,
    paired_rows,
    runs_of,
    tables,
)
from experiments.records import write_record

UNIT = 10**12
SEEDS = (1, 2, 3)
MAIN = {(arm.name, arm.mode): arm for arm in main_arms()}
PARTS = {arm.name: arm for arm in part_arms()}


def law(tokens):
    """Bits per byte of uniform after so many tokens; U has 1,000,000."""
    return 1.5 + 0.7 * (tokens / 10**6) ** -0.3


def record(budget, bits, scoring=0, select=None):
    """What the runner leaves of a run; evaluation is in no table."""
    flops = {"forward_backward": int(budget * UNIT) - 5, "optimizer": 5}
    flops |= {"scoring": scoring, "statistics": 7 * scoring, "evaluation": 99}
    return {
        "bits_per_byte": bits,
        "diverged": bits is None,
        "tokens": int(budget * 10**6),
        "flops": flops,
        "config": {"select": select or {"method": "none", "candidates": 16}},
    }


def runs(name, mode="", factor=1.0, budgets=None, shift=0.001, arm=None, **more):
    """An arm that needs `factor` times less tokens; a seed shifts all arms alike."""
    arm = arm or MAIN[name, mode]
    known = {
        (b, s): record(b, law(factor * b * 10**6) + shift * s, more.get("scoring", 0))
        for b in budgets or arm.budgets
        for s in more.get("seeds", SEEDS)
    }
    costs = {k: v for k, v in more.items() if k in ("statistics_flops", "token_flops")}
    return Runs(arm, 0.01, known, **costs)


def test_an_arm_that_needs_a_quarter_of_the_tokens_has_a_ratio_of_four():
    base, four = mixture_rows([runs("uniform"), runs("aql_v2", "target", 4.0)])
    assert base["tokens_ratio_uniform"] == pytest.approx(1.0)
    assert base["oracle_share"] is None
    assert four["target_bits_per_byte"] == pytest.approx(law(10**6) + 0.002)
    assert four["tokens_to_target"] == pytest.approx(250_000)
    for currency in ("tokens", "flops"):
        key = f"{currency}_ratio_uniform"
        assert four[key] == pytest.approx(4.0, rel=1e-6)
        for name in ("ci", "t"):  # what a seed does to both cancels
            assert four[f"{key}_{name}_low"] == pytest.approx(4.0, rel=0.01)
            assert four[f"{key}_{name}_high"] == pytest.approx(4.0, rel=0.01)
    assert four["bracketed_within_2x"]
    assert four["bits_per_byte_u0.25"] == pytest.approx(base["bits_per_byte_u1"])
    assert four["bits_per_byte_u1"] is None


def test_flops_hold_scoring_statistics_and_the_reference():
    quarter = UNIT // 4
    free = runs("aql_v2", "target", 4.0)
    scored = runs("aql_v2", "target", 4.0, scoring=quarter // 80)  # 8 of 80 in all
    cleaned = runs("b3", "target", 4.0, statistics_flops=quarter)
    select = {"method": "rho", "candidates": 4}
    rho = runs("rho", "target", 4.0, budgets=(0.25, 0.5), token_flops=quarter / 10**6)
    rho = Runs(
        rho.arm,
        0.01,
        {k: {**r, "config": {"select": select}} for k, r in rho.records.items()},
        token_flops=rho.token_flops,
    )
    base = runs("uniform")
    of = lambda found: mixture_rows([base, found])[1]
    assert of(free)["flops_ratio_uniform"] == pytest.approx(4.0)
    assert free.spent("flops", 0.25) == quarter
    assert of(scored)["tokens_ratio_uniform"] == pytest.approx(4.0)
    assert scored.spent("flops", 0.25) == pytest.approx(1.1 * quarter)
    assert of(scored)["flops_ratio_uniform"] == pytest.approx(4 / 1.1, rel=1e-3)
    assert of(cleaned)["flops_ratio_uniform"] == pytest.approx(2.0, rel=1e-3)
    assert rho.spent("offered", 0.25) == 10**6
    assert rho.spent("flops", 0.25) == pytest.approx(2 * quarter)
    assert of(rho)["flops_ratio_uniform"] == pytest.approx(2.0, rel=1e-3)


def test_the_share_of_the_oracle_is_of_the_gain_in_tokens():
    found = [
        runs("uniform"),
        runs("b3", "blind", 2.0),
        runs("aql_v2", "target", 4.0),
        runs("oracle", "", 5.0),
    ]
    shares = [row["oracle_share"] for row in mixture_rows(found)]
    assert shares == pytest.approx([0.0, 0.25, 0.75, 1.0], abs=1e-3)


def test_an_arm_out_of_reach_has_a_bound_and_no_share():
    found = [runs("uniform"), runs("rho", "target", 0.5), runs("oracle", "", 5.0)]
    row = mixture_rows(found)[1]
    assert row["tokens_ratio_uniform"] is None
    assert row["tokens_to_target"] is None
    assert row["oracle_share"] is None
    assert row["tokens_ratio_uniform_ci_high"] == pytest.approx(2.0, rel=0.01)
    assert row["tokens_ratio_uniform_ci_low"] == 0.0
    assert not row["bracketed_within_2x"]
    better = mixture_rows([runs("uniform"), runs("oracle", "", 100.0)])[1]
    assert better["tokens_ratio_uniform"] is None
    assert better["tokens_ratio_uniform_ci_low"] == pytest.approx(8.0, rel=0.01)
    assert better["tokens_ratio_uniform_ci_high"] is None


def test_without_uniform_there_is_no_table():
    assert mixture_rows([runs("oracle")]) == []


def test_differences_are_paired_by_seed():
    full = runs("aql_v2", "target", 4.0)
    gap = np.array([0.03, 0.05])
    at = {(0.25, s): record(0.25, full.losses(0.25)[s - 1] + g)
          for s, g in zip((1, 2), gap, strict=True)}  # fmt: skip
    part = Runs(PARTS["without buffer"], 0.01, at)
    rows = paired_rows([full, part], [full.arm, part.arm], "aql_v2", 0.25)
    assert "difference_to_aql_v2" not in rows[0]
    assert rows[1]["difference_to_aql_v2"] == pytest.approx(0.04)
    half = 12.706 * gap.std(ddof=1) / math.sqrt(2)
    assert rows[1]["difference_high"] == pytest.approx(0.04 + half, rel=1e-3)
    assert rows[1]["difference_low"] == pytest.approx(0.04 - half, rel=1e-3)
    assert rows[1]["seeds"] == 2
    assert rows[1]["total_flops"] == UNIT / 4


def test_a_pair_is_of_one_mode_and_one_seed_has_no_difference():
    target, blind = runs("aql_v2", "target", 4.0), runs("aql_v2", "blind", 2.0)
    b3 = {m: runs("b3", m, f) for m, f in (("target", 2.0), ("blind", 1.5))}
    found = [target, blind, *b3.values()]
    rows = paired_rows(found, [r.arm for r in found], "b3", 0.5)
    gaps = {r["mode"]: r["difference_to_b3"] for r in rows if r["arm"] == "aql_v2"}
    assert gaps["target"] == pytest.approx(law(2 * 10**6) - law(10**6))
    assert gaps["blind"] == pytest.approx(law(10**6) - law(0.75 * 10**6))
    one = runs("aql_v2", "target", 4.0, seeds=(2,))
    row = paired_rows([b3["target"], one], [one.arm, b3["target"].arm], "b3", 0.5)[1]
    assert "difference_to_b3" not in row
    assert row["bits_per_byte"] == pytest.approx(law(2 * 10**6) + 0.002)


def test_uniform_is_offered_what_it_trains_on():
    assert offers(record(1.0, 2.0)) == 1
    chosen = {"method": "aql", "candidates": 8}
    assert offers(record(1.0, 2.0, select=chosen)) == 8


# From results


@pytest.fixture
def plan(monkeypatch):
    monkeypatch.setattr(arms, "step_flops", lambda arm, depth, batch: 10**8 * batch)
    return AqlPlan(Options(Path("stores"), ("mixture",)))


def results_of(plan, bits):
    """Every job run at once."""
    results = {}
    while left := [job for job in plan(results) if job.name not in results]:
        for job in left:
            it = dict(job.labels)
            select = {"method": job.config.select.method, "candidates": 4}
            results[job.name] = record(it["budget_units"], bits(it), select=select)
    return results


def steady(it):
    return law({"oracle": 5.0}.get(it["arm"], 1.0) * it["budget_units"] * 10**6)


COSTS = {"b3.target.0.15": 1e9, "b3.blind.0.3": 3e9}
REFERENCE = {"training_flops": 1e10, "flops_per_token": 100.0}


def test_costs_are_charged_to_whom_they_serve(plan):
    found = runs_of(plan, plan.arms(), results_of(plan, steady), COSTS, REFERENCE)
    once = {(r.arm.name, r.arm.mode): r.statistics_flops for r in found}
    assert once.pop(("b3", "target")) == 1e9
    assert once.pop(("b3", "blind")) == 3e9
    assert once.pop(("rho", "target")) == 1.1e10  # it learned from b3's text
    assert set(once.values()) == {0.0}
    assert {r.arm.name for r in found if r.token_flops} == {"rho"}
    assert len(found) == len(main_arms())
    rows = tables(found)
    assert len(rows["aql.mixture"]) == len(found)
    assert [len(rows[f"aql.{name}"]) for name in ("parts", "clean", "tables")] == [
        1,
        0,
        0,
    ]


def test_arms_that_are_not_done_are_left_out(plan):
    results = results_of(plan, steady)
    missing = next(n for n in results if n.startswith("final/mixture_b2_rho"))
    del results[missing]
    assert "rho" not in {r.arm.name for r in runs_of(plan, plan.arms(), results, {})}
    searching = {n: r for n, r in results.items() if "oracle" not in n}
    names = {r.arm.name for r in runs_of(plan, plan.arms(), searching, {})}
    assert "oracle" not in names
    assert "uniform" in names


def test_a_seed_that_diverged_is_in_no_figure(plan, tmp_path):
    def bits(it):
        if (it["arm"], it["seed"], it["budget_units"]) == ("oracle", 2, 0.25):
            return None
        return None if it["arm"] == "rho" and it["seed"] else steady(it)

    found = runs_of(plan, plan.arms(), results_of(plan, bits), COSTS, REFERENCE)
    oracle = next(r for r in found if r.arm.name == "oracle")
    assert (oracle.seeds, oracle.diverged) == ((1, 3), (2,))
    rows = {(row["arm"], row["mode"]): row for row in mixture_rows(found)}
    row, lost = rows["oracle", None], rows["rho", "target"]
    assert row["diverged_seeds"] == 1
    assert row["tokens_ratio_uniform"] == pytest.approx(5.0, rel=1e-3)
    assert row["tokens_ratio_uniform_t_low"] == pytest.approx(5.0, rel=0.01)
    assert (lost["seeds"], lost["diverged_seeds"], lost["oracle_share"]) == (0, 3, None)
    for name, known in tables(found).items():
        if known:
            write_record(name, known, "a command", {}, out=tmp_path)


def test_an_arm_of_which_all_diverged_says_so_in_its_table():
    full = runs("aql_v2", "target", 4.0)
    lost = Runs(PARTS["high loss"], 0.01, {}, diverged=(1, 2))
    rows = paired_rows([full, lost], [full.arm, lost.arm], "aql_v2", 0.25)
    assert {row["arm"]: row["diverged_seeds"] for row in rows} == {
        "high loss": 2,
        "aql_v2": 0,
    }
