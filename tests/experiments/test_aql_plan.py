"""The plan against a made-up world: bits per byte as a smooth function of a job."""

import dataclasses
import functools
import math
from pathlib import Path

import pytest

from experiments import aql_plan, arms
from experiments.aql_plan import (
    EVAL_TOKENS,
    LEAST_CANDIDATES,
    MOST_CANDIDATES,
    RATE_TRIALS,
    TABLES,
    AqlPlan,
    Arm,
    Options,
    configure,
    main_arms,
    origin,
    part_arms,
    selection,
    table_arms,
)
from uets_jax.config import config_hash
from uets_jax.validation import validate

BEST = {"uniform": 0.01, "b3": 0.02, "rho": 0.005, "aql_v2": 0.02, "oracle": 0.01}


def labels(job):
    return dict(job.labels)


def bits(job):
    """A power law in the budget, a bowl in the rate."""
    it = labels(job)
    away = math.log2(it["learning_rate"] / BEST.get(it["arm"], 0.01))
    return 1.5 + it["budget_units"] ** -0.25 + 0.02 * away**2


@pytest.fixture(scope="module", autouse=True)
def cheap():
    """FLOPs of a step without a trace; equal configs are made once."""
    real = arms.config

    @functools.cache
    def once(arm, source, settings, depth, flops, seed):
        return real(arm, source, dict(settings), depth, flops, seed)

    def config(arm, source, settings, depth, flops, seed):
        return once(arm, source, tuple(settings.items()), depth, flops, seed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arms, "step_flops", lambda arm, depth, batch: 10**8 * batch)
        patch.setattr(arms, "config", config)
        yield


def make(*tables, **options):
    return AqlPlan(Options(Path("stores"), tables or tuple(TABLES), **options))


def run(plan, world=bits):
    """(final plan, results), every wanted job being run at once."""
    results = {}
    while left := [job for job in plan(results) if job.name not in results]:
        results |= {job.name: {"bits_per_byte": world(job)} for job in left}
    return plan(results), results


@pytest.fixture(scope="module")
def whole():
    return run(make())


@pytest.fixture(scope="module")
def jobs(whole):
    return whole[0]


def of(jobs, stage, **wanted):
    return [
        job
        for job in jobs
        if labels(job)["stage"] == stage and wanted.items() <= labels(job).items()
    ]


def test_names_are_unique_and_tell_runs_apart(jobs):
    assert len({job.name for job in jobs}) == len(jobs)
    assert len({config_hash(job.config) for job in jobs}) == len(jobs)
    assert not [job.name for job in jobs if " " in job.name]


def test_it_depends_on_the_results_alone(whole):
    jobs, results = whole
    assert results.keys() == {job.name for job in jobs}  # none that was given up
    names = list(results)
    for share in (0.0, 0.4, 0.8, 1.0):
        some = names[: round(share * len(names))]
        asked = [make()({n: results[n] for n in order}) for order in (some, some[::-1])]
        assert [(j.name, j.config) for j in asked[0]] == [
            (j.name, j.config) for j in asked[1]
        ]
    plan = make()
    assert plan(results) == plan(results)


def test_every_config_can_be_run(jobs):
    for job in jobs:
        validate(job.config)
        assert job.config.train.steps >= 1


def test_trials_read_one_half_and_finals_the_other(jobs):
    for job in jobs:
        it, config = labels(job), job.config
        final = it["stage"] == "final"
        half = "b" if final else "a"
        assert config.data.source == f"tokens:stores/{it['text']}.{half}"
        assert config.train.eval_tokens == (0 if final else EVAL_TOKENS)
        assert config.train.seed == it["seed"]
        assert (it["seed"] >= 1) == final  # a seed that chose is in no table


def test_every_arm_has_one_search_of_as_many_trials_at_most(jobs):
    searched = {}
    for job in of(jobs, "rate"):
        it = labels(job)
        key = it["track"], it["arm"], it["mode"]
        searched.setdefault(key, []).append((it["learning_rate"], it["budget_units"]))
    named = {(a.track, a.name, a.mode) for a in [*main_arms(), *aql_plan.clean_arms()]}
    assert searched.keys() <= named
    for (_, name, _), trials in searched.items():
        rates = [rate for rate, _ in trials]
        assert 3 <= len(rates) == len({*rates}) <= RATE_TRIALS
        assert rates[0] == 0.01
        assert {u for _, u in trials} == {
            0.5 if trials == searched.get(("mixture", "uniform", "")) else 0.25
        }, name


def test_finals_have_the_best_rate_of_their_own_search(jobs):
    for job in of(jobs, "final"):
        it = labels(job)
        if it["recipe"] == "b2m":
            assert it["learning_rate"] == 0.01  # that of the baselines' b3
        elif it["track"] == "mixture" and it["arm"] in BEST:
            assert it["learning_rate"] == BEST[it["arm"]], job.name
    for part in part_arms():
        rates = {labels(j)["learning_rate"] for j in of(jobs, "final", arm=part.name)}
        assert rates == {BEST[part.like]}


def test_seeds_of_the_finals(jobs):
    seeds = {}
    for job in of(jobs, "final"):
        it = labels(job)
        row = it["recipe"], it["track"], it["arm"], it["mode"], it["budget_units"]
        seeds.setdefault(row, []).append(it["seed"])
    parts = {part.name for part in part_arms()}
    for row, found in seeds.items():
        assert found == ([1, 2] if row[2] in parts else [1, 2, 3]), row
    more, _ = run(make("tables", seeds=5))
    blind = of(more, "final", arm="aql_v2", mode="blind")
    assert [labels(job)["seed"] for job in blind] == [1, 2, 3, 4, 5]


def test_a_search_waits_for_no_other_arm():
    """uniform is done, the others have no result yet."""
    results = {}
    while True:
        left = [j for j in make("mixture")(results) if j.name not in results]
        ours = [j for j in left if labels(j)["arm"] == "uniform"]
        if any(labels(j)["stage"] == "final" for j in ours):
            break
        results |= {j.name: {"bits_per_byte": bits(j)} for j in ours}
    assert {labels(j)["budget_units"] for j in ours} == {0.5, 1.0}
    others = [labels(j) for j in left if labels(j)["arm"] != "uniform"]
    assert {it["stage"] for it in others} == {"rate"}
    assert len(others) == len(main_arms()) - 1


def test_a_trial_that_diverges_is_passed_by():
    def world(job):
        it = labels(job)
        bad = it["stage"] == "rate" and it["learning_rate"] > 0.01
        return None if bad else bits(job)

    jobs, _ = run(make("mixture"), world)
    assert {labels(j)["learning_rate"] for j in of(jobs, "final")} == {0.01, 0.005}


def test_a_table_alone_has_what_it_is_compared_with():
    jobs, _ = run(make("parts"))
    base = of(jobs, "final", arm="aql_v2", mode="target", budget_units=0.25)
    assert len(base) == 3
    assert not of(jobs, "final", arm="rho")
    jobs, _ = run(make("tables"))
    assert {labels(j)["stage"] for j in jobs} == {"final"}


def test_rates_are_taken_from_the_same_track_and_mode():
    for arm in part_arms():
        assert (origin(arm).name, origin(arm).track) == (arm.like, "mixture")
        assert origin(arm).mode in ("", "target")
    clean = {arm.name: arm for arm in aql_plan.clean_arms()}
    assert origin(clean["aql_v2"]) == clean["uniform"]


# Configs


def config(arm, budget=0.25, **options):
    options = Options(Path("stores"), (), **options)
    return configure(options, arm, budget, 1, 0.01, "b")


def test_arms_differ_in_the_choice_of_data_alone():
    plain = config(Arm("uniform", "", "mixture"))
    for arm in [*main_arms(), *part_arms()]:
        found = config(arm)
        source = dataclasses.replace(found.data, source=plain.data.source)
        same = {"data": source, "select": plain.select, "name": plain.name}
        assert dataclasses.replace(found, **same) == plain, arm.name


def test_a_part_differs_from_the_whole_in_what_its_name_says():
    whole = config(
        next(a for a in main_arms() if (a.name, a.mode) == ("aql_v2", "target"))
    )
    off = {
        "without uncertainty": {"uncertainty"},
        "without novelty": {"novelty"},
        "without order": {"natural"},
        "without documents": {"run"},
        "without buffer": {"buffer"},
        "with the bandit": {"policy"},
        "with the switch": {"switch"},
        "uncertainty weighs 0.5": {"knobs"},
        "progress weighs 0.5": {"knobs"},
        "de-duplication only": {"natural", "lexical"},
        "n-grams only": {"natural", "novelty"},
    }
    parts = {arm.name: config(arm).select for arm in part_arms()}
    for name, fields in off.items():
        changed = {
            f.name
            for f in dataclasses.fields(whole.select)
            if getattr(parts[name], f.name) != getattr(whole.select, f.name)
        }
        assert changed == fields, name
    assert parts["uncertainty weighs 0.5"].knobs.uncertainty == 0.5
    assert parts["high loss"].method == "loss"
    assert parts["uniform at U/4"].method == "none"
    assert parts.keys() == off.keys() | {"high loss", "uniform at U/4"}


def test_candidates_are_one_pass_at_most():
    arm = Arm("aql_v2", "blind", "mixture", select=aql_plan.AQL)
    known = {}
    for budget in (0.01, 0.125, 0.25, 0.5, 8.0):
        found = config(arm, budget)
        known[budget] = found.select.candidates
        offered = known[budget] * found.train.steps * found.train.batch
        least = known[budget] == LEAST_CANDIDATES
        assert least or offered <= Options.windows
        most = known[budget] == MOST_CANDIDATES
        assert most or offered + found.train.steps * found.train.batch > Options.windows
    assert known[0.01] == MOST_CANDIDATES
    assert known[8.0] == LEAST_CANDIDATES


def test_what_a_mode_may_read():
    def select(arm):
        return config(arm).select

    for arm in [*main_arms(), *part_arms(), *table_arms(), *aql_plan.clean_arms()]:
        found = select(arm)
        knows = arm.mode == "target" and found.method == "aql"
        assert bool(found.target) == knows, arm
        assert bool(found.reference) == (found.method == "rho")
        if found.method == "aql":
            assert found.mode == arm.mode
    assert selection(
        Options(Path("stores"), ()),
        Arm("aql_v2", "pool", "clean", select=aql_plan.AQL),
        config(Arm("uniform", "", "clean")),
    ).candidates == LEAST_CANDIDATES  # fmt: skip
