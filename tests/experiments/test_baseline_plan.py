"""The plan against a made-up world: bits per byte as a smooth function of a job."""

import functools
import math
from pathlib import Path

import pytest

from experiments import arms, baseline_plan, search
from experiments.baseline_plan import (
    ARMS,
    BUDGETS,
    EVAL_TOKENS,
    LEAST,
    MANY,
    MODES,
    MOST,
    RATE_TRIALS,
    SHARES,
    TRIALS,
    Baselines,
    Choice,
    Options,
)

# the best settings, mostly some places off the start of the search
RATES = {"b0": 0.004, "b1": 0.008, "b2": 0.01, "b2m": 0.04}
DECAYS = {"b0": 0.3, "b1": 0.03, "b2": 0.0, "b2m": 0.1}
SPEEDS = {"b0": 1.0, "b1": 1.5, "b2": 3.0, "b2m": 4.0}
TEXTS = {"clean": 1.0, "mixture": 1.0, "b3.target.0.2": 2.0, "b3.blind.0.3": 1.6}


def labels(job):
    return dict(job.labels)


class World:
    """Power laws in the budget, bowls in the settings, worth of the texts."""

    def __init__(self, speeds=SPEEDS, diverges=lambda label: False):
        self.speeds, self.diverges = speeds, diverges

    def __call__(self, job):
        it = labels(job)
        if self.diverges(it):
            return None
        arm, on_clean = it["recipe"], it["text"] == "clean"
        rate = RATES[arm] / math.sqrt(it["depth"])
        bowl = 0.02 * math.log2(it["learning_rate"] / rate) ** 2
        bowl += 0.01 * math.log2(it["batch"] / 16) ** 2
        bowl += 0.02 * (math.log10(it["weight_decay"] + 0.01) - self.decay(arm)) ** 2
        bowl += 0.003 * (it["schedule"] != "linear") + 0.1 * (it["warmup"] - 0.1) ** 2
        bowl += 0.01 * math.log2(it.get("adam_ratio", 2.0) / 2.0) ** 2
        bowl += 0.03 * math.log2(it["depth"] / (2 if on_clean else 1)) ** 2
        faster = self.speeds[arm] * TEXTS.get(it["text"], 0.5 if on_clean else 1.2)
        return 1.5 + 2 * (it["budget_units"] * faster) ** -0.25 + bowl

    def decay(self, arm):
        return math.log10(DECAYS[arm] + 0.01)


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
        flops = lambda arm, depth, batch: 10**8 * depth * batch
        patch.setattr(arms, "step_flops", flops)
        patch.setattr(arms, "config", config)
        yield


def make(**options):
    return Baselines(Options(Path("stores"), **options), lambda result: {})


def run(plan, bits):
    """(final plan, results), every wanted job being run at once."""
    results = {}
    while left := [job for job in plan(results) if job.name not in results]:
        results |= {job.name: {"bits_per_byte": bits(job)} for job in left}
    return plan(results), results


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture(scope="module")
def whole(world):
    return run(make(), world)


@pytest.fixture(scope="module")
def jobs(whole):
    return whole[0]


def stage(jobs, name, **wanted):
    """The jobs of a stage with these labels."""
    found = [(job, labels(job)) for job in jobs]
    known = lambda it: it["stage"] == name and wanted.items() <= it.items()
    return [job for job, it in found if known(it)]


def values(jobs, key):
    return [labels(job)[key] for job in jobs]


def best_of(jobs, bits):
    return labels(min(jobs, key=bits))


# The plan as such


def test_names_are_unique_and_tell_runs_apart(jobs):
    assert len({job.name for job in jobs}) == len(jobs)
    # the chosen share's own run is the first of its stage "pool", too
    apart = [job for job in jobs if dict(job.labels).get("stage") != "share"]
    assert len({job.config for job in apart}) == len(apart)


def test_what_is_wanted_once_is_wanted_to_the_end(whole):
    """Nothing is run on a choice that is still to change, whoever comes first."""
    jobs, results = whole
    assert results.keys() == {job.name for job in jobs}


def test_it_depends_on_the_results_alone(whole):
    jobs, results = whole
    names = list(results)
    for share in (0.0, 0.3, 0.7, 1.0):
        some = names[: round(share * len(names))]
        asked = [
            [job.name for job in make()({n: results[n] for n in order})]
            for order in (some, some[::-1])
        ]
        assert asked[0] == asked[1]
    assert [job.name for job in make()(results)] == [job.name for job in jobs]


def test_trials_read_one_half_and_finals_the_other(jobs):
    for job in jobs:
        it = labels(job)
        half = "b" if it["stage"] == "final" else "a"
        assert job.config.data.source == f"tokens:stores/{it['text']}.{half}"
        whole = it["stage"] == "final"
        assert job.config.train.eval_tokens == (0 if whole else EVAL_TOKENS)
        assert (job.measure is not None) == whole


def test_a_run_spends_the_budget_that_it_names(jobs):
    for job in jobs:
        it = labels(job)
        step = arms.step_flops(it["recipe"], it["depth"], it["batch"])
        budget = it["budget_units"] * arms.UNIT
        assert abs(job.config.train.steps * step - budget) <= step / 2
        assert job.config.model.depth == it["depth"]


# Tuning and sizes


@pytest.mark.parametrize("arm", ARMS)
def test_the_tuning_finds_the_best_or_ends_after_so_many_trials(arm, jobs, world):
    trials = stage(jobs, "tune", arm=arm)
    axes = arms.axes(arm)
    losses = {point(axes, labels(job)): world(job) for job in trials}
    left = search.next_point(axes, losses, 10**6)
    assert len(trials) == len(losses) == TRIALS or left is None
    assert len(trials) <= TRIALS
    assert {*values(trials, "budget_units")} == {0.25}
    assert {*values(trials, "depth")} == {1}
    best = best_of(trials, world)
    assert best["learning_rate"] == RATES[arm]
    assert best["batch"] in (8, 16)
    assert search.edges(axes, search.best(losses)) == []


def test_every_arm_has_as_many_trials(world, monkeypatch):
    monkeypatch.setattr(baseline_plan, "TRIALS", 12)
    jobs, _ = run(make(tracks=("clean",), tune_only=True), world)
    assert {arm: len(stage(jobs, "tune", arm=arm)) for arm in ARMS} == {
        arm: 12 for arm in ARMS
    }


def point(axes, it):
    return tuple(axis.values.index(it[axis.name]) for axis in axes)


@pytest.mark.parametrize("arm", ARMS)
def test_every_depth_has_rates_of_its_own(arm, jobs, world):
    tuned = best_of(stage(jobs, "tune", arm=arm), world)
    for depth in arms.DEPTHS:
        trials = stage(jobs, "size", arm=arm, depth=depth)
        rates = values(trials, "learning_rate")
        assert 3 <= len(rates) == len({*rates}) <= RATE_TRIALS
        assert rates[0] == tuned["learning_rate"]
        for key in ("batch", "weight_decay", "schedule", "warmup"):
            assert {*values(trials, key)} == {tuned[key]}
        assert {*values(trials, "budget_units")} == {0.5}
    best = best_of(stage(jobs, "size", arm=arm), world)
    assert best["depth"] == 2
    for final in stage(jobs, "final", arm=arm, track="clean"):
        for key in ("depth", "learning_rate", "batch", "schedule"):
            assert labels(final)[key] == best[key]


def test_sizes_wait_for_the_tuning_of_their_arm_alone(world):
    """b0 is tuned, the others have no result yet."""
    results = {}
    while True:
        left = [j for j in make()(results) if j.name not in results]
        ours = [j for j in left if labels(j)["arm"] == "b0"]
        if any(labels(j)["stage"] != "tune" for j in ours):
            break
        results |= {j.name: {"bits_per_byte": world(j)} for j in ours}
    assert {(labels(j)["stage"], labels(j)["depth"]) for j in ours} == {
        ("size", depth) for depth in arms.DEPTHS
    }
    others = [labels(j) for j in left if labels(j)["arm"] != "b0"]
    assert [(it["arm"], it["stage"]) for it in others] == [
        (arm, "tune") for arm in ARMS[1:]
    ]


# The pool


@pytest.mark.parametrize("arm", ARMS)
def test_the_rate_and_the_depth_are_chosen_again_on_the_pool(arm, jobs, world):
    trials = stage(jobs, "pool", text="mixture", arm=arm)
    assert {*values(trials, "budget_units")} == {0.5}
    assert {*values(trials, "depth")} == {*arms.DEPTHS}
    at_two = [job for job in trials if labels(job)["depth"] == 2]
    assert 3 <= len({*values(at_two, "learning_rate")}) <= RATE_TRIALS
    rate = best_of(at_two, world)["learning_rate"]
    others = [job for job in trials if labels(job)["depth"] != 2]
    assert values(others, "learning_rate") == [rate, rate]
    finals = stage(jobs, "final", arm=arm, track="mixture")
    assert {*values(finals, "depth")} == {best_of(trials, world)["depth"]}
    assert {*values(finals, "text")} == {"mixture"}


@pytest.mark.parametrize("mode", MODES)
def test_every_share_is_tried_in_both_modes(mode, jobs, world):
    names = [f"b3.{mode}.{share:g}" for share in SHARES]
    trials = [job for job in stage(jobs, "share") if labels(job)["text"] in names]
    assert values(trials, "text") == names
    assert {*values(trials, "recipe")} == {"b2m"}  # the better one of the two
    assert {*values(trials, "budget_units")} == {0.5}
    finals = stage(jobs, "final", arm="b3", mode=mode)
    best = {"target": "b3.target.0.2", "blind": "b3.blind.0.3"}[mode]
    assert {*values(finals, "text")} == {best}
    assert {*values(finals, "recipe")} == {"b2m"}
    assert {*values(finals, "track")} == {"mixture"}
    again = stage(jobs, "pool", text=best)
    assert {*values(again, "depth")} == {*arms.DEPTHS}
    assert {*values(finals, "depth")} == {best_of(again, world)["depth"]}


def test_the_oracle_has_two_texts_to_choose_from(jobs, world):
    trials = [j for j in stage(jobs, "share") if "oracle" in labels(j)["text"]]
    assert values(trials, "text") == ["oracle.target", "oracle.near"]
    best = best_of(trials, world)["text"]
    assert {*values(stage(jobs, "final", arm="oracle"), "text")} == {best}


# Final runs


def test_seeds_are_paired_and_not_those_of_the_trials(jobs):
    seeds = {}
    for job in jobs:
        it = labels(job)
        assert job.config.train.seed == it["seed"]
        if it["stage"] == "final":
            row = it["track"], it["arm"], it["mode"], it["budget_units"]
            seeds.setdefault(row, []).append(it["seed"])
        else:
            assert it["seed"] == 0
    assert {tuple(row) for row in seeds.values()} == {(1, 2, 3)}
    rows = {row[:3] for row in seeds}
    assert len(rows) == 2 * len(ARMS) + 3  # b3 in two modes, oracle


def budgets(jobs, arm, track="clean"):
    return {*values(stage(jobs, "final", arm=arm, track=track), "budget_units")}


def test_budgets_are_those_of_the_arm(jobs):
    assert budgets(jobs, "b0") == {*BUDGETS["b0"]}
    assert budgets(jobs, "b1") == {*BUDGETS["b1"]}
    for arm in ("b2", "b2m"):
        assert budgets(jobs, arm) == {*MANY}


@pytest.mark.parametrize(
    ("speed", "more"),
    [
        (12.0, {1 / 16}),  # 1/12 lies between 1/16 and 1/8
        (20.0, {1 / 16, 1 / 32}),
        (1000.0, {1 / 16, LEAST}),
        (0.7, {2.0}),
        (0.1, {MOST}),
        (8.5, {1 / 16}),
        (7.5, set()),
        (1.05, set()),
    ],
)
def test_budgets_are_added_until_the_target_is_bracketed(speed, more):
    """Bits per byte of a final run is that of b0 at `speed` times its budget."""

    def bits(job):
        it = labels(job)
        if it["stage"] != "final":
            return World()(job)
        faster = speed if it["arm"] == "b2" else 1.0
        return 1.5 + 2 * (it["budget_units"] * faster) ** -0.25

    jobs, results = run(make(tracks=("clean",), seeds=2), bits)
    assert budgets(jobs, "b2") == {*MANY} | more
    assert budgets(jobs, "b0") == {*BUDGETS["b0"]}
    target = 3.5
    found = [
        (labels(j)["budget_units"], results[j.name]["bits_per_byte"])
        for j in stage(jobs, "final", arm="b2")
    ]
    bracketed = min(b for _, b in found) <= target <= max(b for _, b in found)
    assert bracketed == (speed not in (1000.0, 0.1))


def test_a_final_run_that_diverged_adds_nothing():
    bad = lambda it: it["stage"] == "final" and it["seed"] == 2
    jobs, results = run(make(tracks=("clean",)), World(diverges=bad))
    assert budgets(jobs, "b2m") == {*MANY}
    assert {job.name for job in jobs} == results.keys()


# Options


def test_one_track_alone(world):
    jobs, _ = run(make(tracks=("clean",), seeds=5), world)
    assert {*values(jobs, "text")} == {"clean"}
    finals = stage(jobs, "final", arm="b1", budget_units=0.5)
    assert values(finals, "seed") == [1, 2, 3, 4, 5]
    jobs, _ = run(make(tracks=("mixture",)), world)
    assert {labels(j)["track"] for j in stage(jobs, "final")} == {"mixture"}
    assert {*values(stage(jobs, "tune"), "text")} == {"clean"}


def test_tuning_alone_has_no_final_runs(jobs, world):
    tuning, _ = run(make(tune_only=True), world)
    trials = [job.name for job in jobs if labels(job)["stage"] != "final"]
    assert [job.name for job in tuning] == trials


def test_trials_that_diverge_are_passed_by():
    """High rates diverge at every stage; so does one share, and a depth on the pool."""

    def bad(it):
        high = it["learning_rate"] > 1.5 * RATES[it["recipe"]]
        deep = it["stage"] == "pool" and it["depth"] == 4
        return high or deep or it["text"] == "b3.target.0.2"

    jobs, results = run(make(), World(diverges=bad))
    finals = stage(jobs, "final")
    assert all(results[job.name]["bits_per_byte"] for job in finals)
    assert len({(labels(j)["track"], labels(j)["arm"]) for j in finals}) == 10
    [text] = {*values(stage(jobs, "final", arm="b3", mode="target"), "text")}
    assert text != "b3.target.0.2"


def test_a_choice_with_other_settings_keeps_the_rest():
    choice = Choice("b0", 1, (("learning_rate", 0.1), ("batch", 4)))
    other = choice.replace(depth=2, learning_rate=0.2)
    assert other == Choice("b0", 2, (("learning_rate", 0.2), ("batch", 4)))
    assert choice.replace() == choice
