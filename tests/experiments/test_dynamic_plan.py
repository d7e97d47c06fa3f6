from pathlib import Path

import pytest

from experiments.dynamic_plan import (
    RATES,
    TABLES,
    Arm,
    DynamicPlan,
    Options,
    configure,
    fixed_trials,
    moe_arms,
    prune_arms,
    tokens_of,
)
from uets_jax.growth.stages import ladder, parse
from uets_jax.measure.flops import step_flops
from uets_jax.validation import validate

OPTIONS = Options(Path("stores"))


def finish(plan, bits=lambda job: 2.0):
    """Runs a plan to its end with made-up results."""
    results = {}
    for _ in range(20):
        jobs = plan(results)
        new = [job for job in jobs if job.name not in results]
        if not new:
            return jobs, results
        results |= {job.name: {"bits_per_byte": bits(job)} for job in new}
    raise AssertionError("the plan has no end")


@pytest.fixture(scope="module")
def whole():
    return finish(DynamicPlan(OPTIONS))[0]


def test_tokens_are_counted_per_parameter_of_the_blocks():
    assert tokens_of(3) == 3 * 4 * (4 * 64 * 64 + 2 * 64 * 256)


def test_every_job_can_be_run_and_has_a_name_of_its_own(whole):
    assert len({job.name for job in whole}) == len(whole)
    for job in whole:
        validate(job.config)
        ladder(job.config)


def test_every_table_is_planned(whole):
    planned = {dict(job.labels)["table"] for job in whole}
    assert planned == {"trial", "final", *TABLES} - {"target"}


def test_nothing_final_runs_before_its_trials():
    jobs = DynamicPlan(Options(Path("stores"), ("target",)))({})
    assert {dict(job.labels)["table"] for job in jobs} == {"trial"}


def test_final_runs_take_what_their_trials_chose():
    best = lambda job: 1.0 if dict(job.labels)["rate"] == RATES[3] else 2.0
    jobs, _ = finish(DynamicPlan(Options(Path("stores"), ("target",))), best)
    final = [dict(job.labels) for job in jobs if dict(job.labels)["table"] == "final"]
    assert {row["rate"] for row in final} == {RATES[3]}


def test_more_tokens_take_the_choices_of_recorded_trials():
    row = lambda arm, rate, bits, **more: {
        "arm": arm,
        "tokens_per_param": 3,
        "rate": rate,
        "bits_per_byte": bits,
        "plan": "",
        "how": "",
        **more,
    }
    trials = (
        row("static", RATES[3], 2.0),
        row("static", RATES[4], 1.9),
        row("static 1", 0.005, 1.9),
        row("static 2", 0.02, 1.9),
        row("grow_fixed", 0.01, 2.0, plan="depth=4:0.6", how="stack"),
    )
    options = Options(Path("stores"), ("target",), per_param=(10,), trials=trials)
    jobs, _ = finish(DynamicPlan(options))
    labels = [dict(job.labels) for job in jobs]
    assert {row["tokens_per_param"] for row in labels} == {10}
    rates = {(row["arm"], row["rate"]) for row in labels}
    assert rates == {
        *(("static", rate) for rate in RATES[1:5]),
        ("static 1", 0.005),
        ("static 2", 0.02),
        *(("grow_fixed", rate) for rate in (0.005, 0.01, 0.02)),
    }
    assert {row["how"] for row in labels if row["arm"] == "grow_fixed"} == {"stack"}
    assert {row["depth"] for row in labels if row["arm"] == "grow_fixed"} == {1, 2}
    assert not DynamicPlan(Options(Path("s"), ("target",), per_param=(10,)))({})


def test_trials_are_read_on_one_half_and_final_runs_on_the_other(whole):
    for job in whole:
        half = "a" if dict(job.labels)["table"] == "trial" else "b"
        assert job.config.data.source.endswith(f"clean.{half}")


def test_the_arms_that_are_compared_end_at_the_same_size(whole):
    final = [job for job in whole if dict(job.labels)["table"] == "final"]
    grown = [job for job in final if dict(job.labels)["arm"].startswith("grow")]
    assert grown
    assert {ladder(job.config)[-1].model.depth for job in grown} == {4}


def test_growth_has_as_many_trials_as_the_static_model():
    assert len(fixed_trials()) >= len(RATES)


def test_random_times_differ_by_seed_and_come_again(whole):
    name = lambda job: dict(job.labels)["arm"]
    plans = [job.config.growth.plan for job in whole if name(job) == "grow_random"]
    assert len(set(plans)) == OPTIONS.seeds  # a time for each seed, at all budgets
    again = configure(OPTIONS, Arm("x", times=True), tokens_of(3), 1)
    same = configure(OPTIONS, Arm("x", times=True), tokens_of(3), 1)
    assert again.growth.plan == same.growth.plan != ""


def test_every_pruning_arm_but_the_static_ones_prunes():
    for arm in prune_arms():
        config = configure(OPTIONS, arm, tokens_of(3), 1)
        stages = parse(config.growth)
        assert bool(stages) != arm.name.startswith("static")


def test_experts_have_the_active_flops_of_the_dense_model_less_their_spare_rows():
    dense, experts, _ = (configure(OPTIONS, arm, tokens_of(3), 1) for arm in moe_arms())
    ratio = (
        step_flops(experts)["forward_backward"] / step_flops(dense)["forward_backward"]
    )
    assert 1.0 < ratio < 1.15
