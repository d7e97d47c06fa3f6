import math
from pathlib import Path

import numpy as np
import pytest

from experiments import arms, growth_policy_ladder
from experiments.growth_policy_ladder import LADDERS
from experiments.growth_policy_plan import (
    DEAR,
    EARLIEST,
    LATEST,
    PRICES,
    Case,
    Options,
    PolicyPlan,
    cases,
    random_plan,
)
from uets_jax.config import GrowthConfig
from uets_jax.growth.stages import ladder, parse

OPTIONS = Options(Path("stores"), seeds=2, steps=40, random=4, weights=(1.0, 2.0))


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    """A step costs as much as the model is large."""
    flops = lambda *given: 10**6 * given[1]
    monkeypatch.setattr(arms, "step_flops", flops)
    monkeypatch.setattr(growth_policy_ladder, "step_flops", flops)


def record(job, loss=3.0):
    spent = {"forward_backward": 10**6 * job.config.train.steps, "evaluation": 7}
    return dict(job.labels) | {"final_loss": loss, "flops": spent, "diverged": False}


def done(plan, jobs, loss=lambda job: 3.0):
    return {job.name: record(job, loss(job)) for job in jobs}


def test_rollouts_are_static_sizes_and_random_times():
    jobs = PolicyPlan(OPTIONS, verify=False)({})
    assert len({job.name for job in jobs}) == len(jobs) == 12 + 8
    assert {job.config.model.width for job in jobs[:12]} == {16, 32, 64}
    assert {job.config.train.steps for job in jobs} == {20, 40}
    for job in jobs[12:]:
        assert job.config.growth.method == "fixed"
        assert job.config.model.width == 16
        assert ladder(job.config)[-1].model.width == 64
    stages = [len(parse(job.config.growth)) for job in jobs[12:]]
    assert {*stages} == {1, 2}
    for job in jobs:
        assert job.config.data.source == "tokens:stores/clean.a"
        assert not {" ", ":", ","} & {*job.name}


def test_about_forty_by_default():
    assert len(PolicyPlan(Options(Path("x")), verify=False)({})) == 40


def test_random_times_lie_in_the_stable_part_of_the_rate():
    rng = np.random.default_rng(0)
    for two in (False, True) * 50:
        stages = parse(GrowthConfig(plan=random_plan(rng, LADDERS["depth"], two)))
        shares = [stage.share for stage in stages]
        assert EARLIEST <= min(shares) <= max(shares) <= LATEST


def test_the_verdict_comes_once_the_rollouts_are_there():
    plan = PolicyPlan(OPTIONS, verify=True)
    first = plan({})
    assert all(job.name.startswith("rollout/") for job in first)
    some = done(plan, first[:-1])
    assert plan(some) == first
    jobs = plan(done(plan, first))
    assert jobs[: len(first)] == first
    verdict = jobs[len(first) :]
    assert verdict
    assert all(job.name.startswith("verify/") for job in verdict)
    assert plan(done(plan, jobs)) == jobs


def verdict(best):
    """Jobs of the verdict where one rollout, whose name has `best`, is the best."""
    plan = PolicyPlan(OPTIONS, verify=True)
    jobs = plan(done(plan, plan({}), lambda job: 2.0 if best in job.name else 3.0))
    return [job for job in jobs if job.name.startswith("verify/")]


def test_every_case_has_every_arm_with_every_seed():
    jobs = verdict("fixed")
    for case in cases(OPTIONS):
        for seed in (101, 102):
            mine = [dict(job.labels) for job in jobs]
            mine = [r for r in mine if (r["track"], r["horizon"]) == case]
            mine = [r for r in mine if r["seed"] == seed]
            prices = {r["price"] for r in mine if r["arm"] == "learned"}
            assert {*PRICES} <= prices
            assert (DEAR in prices) == (case == Case("clean", 40))
            arms_ = {r["arm"] for r in mine}
            assert arms_ >= {"fixed", "trigger", "random", "learned"}
            assert arms_ >= {f"static {size}" for size in (16, 32, 64)}
    assert len({job.name for job in jobs}) == len(jobs)
    assert {job.config.data.source for job in jobs} == {
        "tokens:stores/clean.b",
        "tokens:stores/mixture.b",
    }


def test_where_no_growth_is_best_its_run_is_the_static_one():
    jobs = verdict("static-16")
    assert not [job for job in jobs if dict(job.labels)["arm"] == "fixed"]


def test_a_learned_run_carries_its_price_and_the_policy_in_its_name():
    jobs = [j for j in verdict("fixed") if dict(j.labels)["arm"] == "learned"]
    for job in jobs:
        assert job.config.growth.method == "learned"
        assert math.isclose(job.config.growth.cost, dict(job.labels)["price"])
        assert OPTIONS.policy in job.name


def test_layers_may_grow_instead():
    options = Options(Path("stores"), "depth", steps=40)
    jobs = PolicyPlan(options, verify=False)({})
    assert {job.config.model.depth for job in jobs[:12]} == {1, 2, 4}
    assert {ladder(job.config)[-1].model.depth for job in jobs[12:]} == {4}
    assert {job.config.model.width for job in jobs} == {64}


def test_what_is_read_off_a_run_knows_its_name():
    asked = []

    def measure(name):
        asked.append(name)
        return lambda result: {}

    jobs = PolicyPlan(OPTIONS, False, measure)({})
    assert asked == [job.name for job in jobs]
