import dataclasses
import math
from pathlib import Path

import pytest

from experiments.optimizer_grids import RULES
from experiments.optimizer_plan import (
    CARRIED,
    CONDITIONS,
    LADDER,
    LATER_SEEDS,
    MANY,
    TASKS,
    UNTUNED,
    OptimizerPlan,
    Options,
    around,
    configure,
    next_place,
    runs_of,
)
from uets_jax.config import config_hash
from uets_jax.validation import validate

OPTIONS = Options(Path("stores"), ("compare",), ("narrow",))


def answer(plan, loss):
    """All that a plan wants, its runs replaced by a function of a job's labels."""
    results = {}
    while True:
        jobs = plan(results)
        new = [job for job in jobs if job.name not in results]
        if not new:
            return results
        for job in new:
            labels = dict(job.labels)
            found = loss(labels)
            record = {"bits_per_byte": found, "steps": job.config.train.steps}
            results[job.name] = {**labels, **record, "name": job.name}


def falls(labels):
    """Muon reaches AdamW's loss in 0.6 of the steps, SGD never; best rate 0.01."""
    speed = {"muon": 1 / 0.6, "learned": 2.0, "sgd": 0.1}.get(labels["rule"], 1.0)
    rate = labels["settings"].get("learning_rate", 0.01)
    off = abs(math.log(rate / 0.01)) if labels["stage"] == "trial" else 0.0
    return 3.0 - math.log(speed * labels["share"]) + off


def test_trials_then_budgets_around_the_target():
    plan = OptimizerPlan(OPTIONS)
    records = list(answer(plan, falls).values())
    for rule in RULES:
        tried = runs_of(records, stage="trial", arm=rule)
        assert 7 <= len(tried) <= 12  # it ends where no neighbour is better
    shares = lambda rule: sorted(
        {r["share"] for r in runs_of(records, stage="final", arm=rule)}
    )
    assert shares("adamw") == [1.0, 1.4, 2.0]  # 1.67 for Muon's loss
    assert shares("muon") == [0.35, 0.5, 0.7, 1.0]  # 0.6 between
    # 0.5 for AdamW's loss, 0.83 for Muon's
    assert shares("learned") == [0.25, 0.35, 0.5, 0.7, 1.0, 1.4]
    assert shares("sgd") == [0.5, 0.7, 1.0, 1.4, 2.0]  # looked up to the end
    count = lambda rule: len(runs_of(records, stage="final", arm=rule, share=0.7))
    assert (count("muon"), count("lion")) == (10, 3)


def test_the_plan_is_the_same_for_equal_results():
    plan = OptimizerPlan(OPTIONS)
    results = answer(plan, falls)
    assert [j.name for j in plan(results)] == [j.name for j in plan(results)]
    names = [job.name for job in plan(results)]
    assert len(names) == len({*names})


@pytest.mark.parametrize(
    ("tried", "place"),
    [
        ({3: 2.0}, 2),  # reached: smaller
        ({3: 4.0}, 4),  # not: larger
        ({3: None}, 4),  # diverged: not reached
        ({3: 2.0, 2: 4.0}, None),
        ({3: 4.0, 4: 2.0}, None),
        ({3: 4.0, 4: 4.0, 5: 4.0, 6: 4.0, 7: 4.0}, None),
        ({3: 2.0, 2: 2.0, 1: 2.0, 0: 2.0}, None),
    ],
)
def test_next_place(tried, place):
    assert next_place(tried, 3.0) == place


@pytest.mark.parametrize(
    ("tried", "places"),
    [
        ({3: 2.0, 2: 4.0}, [1, 2, 3, 4]),
        ({0: 2.0, 1: 2.0, 2: 2.0, 3: 2.0}, [0, 1]),
        ({7: 2.0, 6: 4.0}, [5, 6, 7]),
        ({7: 4.0}, [6, 7]),
    ],
)
def test_budgets_around_the_target(tried, places):
    assert around(tried, 3.0) == places
    assert all(place < len(LADDER) for place in places)


def test_every_rule_can_be_configured_and_trials_share_an_executable():
    for task in TASKS:
        for rule in RULES:
            config = configure(OPTIONS, task, rule, {}, 1.0, 1)
            validate(config)
            assert config.train.steps == task.steps
            assert config.train.batch * config.model.context == 4096
    plain = configure(OPTIONS, TASKS[0], "muon", {"warmup": 0.1}, 0.5, 1)
    assert (plain.train.steps, plain.optim.warmup) == (50, 5)


def test_conditions_change_one_thing():
    plan = OptimizerPlan(Options(Path("stores"), ("robustness",)))
    results = answer(plan, falls)
    jobs = [j for j in plan(results) if dict(j.labels)["stage"] == "robust"]
    assert len(jobs) == len(MANY) * len(CONDITIONS) * LATER_SEEDS
    assert len({config_hash(j.config) for j in jobs}) == len(jobs)
    by = {
        (dict(j.labels)["condition"], dict(j.labels)["factor"]): j.config
        for j in jobs
        if dict(j.labels)["arm"] == "muon"
    }
    same = by["learning_rate", 1.0]
    assert by["batch", 4.0].train.batch == 4 * same.train.batch
    assert by["width", 4.0].model.width == 4 * same.model.width
    assert by["horizon", 0.5].train.steps == same.train.steps // 2
    assert by["bfloat16", 1.0].model.dtype == "bfloat16"
    ratio = by["learning_rate", 10.0].optim.learning_rate / same.optim.learning_rate
    assert ratio == pytest.approx(10)


def test_other_weights_are_other_runs():
    plan = lambda digest: OptimizerPlan(
        Options(Path("stores"), ("untuned",), ("wiki",), digest=digest)
    )
    one, two = ({j.name for j in plan(digest)({})} for digest in ("aa", "bb"))
    assert len(one - two) == LATER_SEEDS  # the learned rule's alone
    assert all("learned" in name for name in one - two)


def test_settings_of_one_task_are_carried_to_the_others():
    plan = OptimizerPlan(Options(Path("stores"), ("untuned",), ("narrow", "wiki")))
    results = answer(plan, falls)
    jobs = [j for j in plan(results) if "tuned on narrow" in dict(j.labels)["arm"]]
    assert len(jobs) == len(CARRIED) * LATER_SEEDS
    assert {dict(j.labels)["task"] for j in jobs} == {"wiki"}
    assert {j.config.optim.learning_rate for j in jobs} == {0.008, 0.01}
    mine = [j for j in jobs if dict(j.labels)["rule"] == "learned"]
    other = dataclasses.replace(plan.options, digest="aa")
    names = {j.name for j in OptimizerPlan(other)(results)}
    assert not {j.name for j in mine} & names


def test_untuned_runs_have_the_defaults():
    plan = OptimizerPlan(Options(Path("stores"), ("untuned",), ("wiki",)))
    jobs = plan({})
    assert len(jobs) == len(UNTUNED) * LATER_SEEDS
    config = next(j.config for j in jobs if dict(j.labels)["arm"] == "learned")
    assert config.optim.learning_rate == type(config.optim)().learning_rate
