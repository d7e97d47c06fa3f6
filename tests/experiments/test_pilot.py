import argparse
import json
import types

import pytest

from experiments import pilot
from experiments.pilot import (
    FULL,
    SHARES,
    SOURCES,
    config,
    job_name,
    jobs_of,
    outcome,
    plans,
    read_jobs,
    rows,
    sized,
    units_of_all,
    write_jobs,
)
from experiments.records import write_record
from uets_jax.errors import UserError
from uets_jax.pilot import plan as planning
from uets_jax.train.budget import Spending

STEP, STATISTICS, UNIT = 10**6, 10**7, 5e9
FASTER = {"selection": 2.0, "growth": 0.7, "start": 1.5}


@pytest.fixture
def free(monkeypatch):
    """Stores that nobody reads; a step costs a million FLOPs, counting ten."""

    def start(one):
        counts = one.select.method == "aql" or one.train.start == "counts"
        return STATISTICS * counts

    def session(one):
        store = types.SimpleNamespace(fingerprint="corpus")
        return types.SimpleNamespace(config=one, store=store)

    steps = lambda one, flops: int((flops - start(one)) / STEP)
    spending = lambda one: Spending(start(one), STEP * one.train.steps)
    for room in (planning, pilot):
        monkeypatch.setattr(room, "open_session", session)
        monkeypatch.setattr(room, "steps_for", steps)
    monkeypatch.setattr(planning, "spending", spending)


def made(tmp_path, seeds=3):
    configs = {c: config(c, tmp_path, tmp_path) for c in SOURCES}
    return plans(configs, UNIT, SHARES, seeds)


def carried_out(found, fades=()):
    """Records by a power law; methods that fade are as the plain arm in full."""
    results = {}
    for key, plan in found.items():
        for shot in plan.shots:
            faster = FASTER.get(shot.arm, 1.0)
            if key[1] == FULL and shot.arm in fades:
                faster = 1.0
            steps = shot.config.train.steps
            noise = (7 * shot.seed + 3 * len(shot.arm) + steps) % 5
            seed = 0.01 * shot.seed + 0.001 * noise
            start = {arm.name: arm.start for arm in plan.arms}[shot.arm]
            results[job_name(key, shot.name)] = {
                "bits_per_byte": 1.2 + 2 * (steps * faster) ** -0.2 + seed,
                "flops": {
                    "forward_backward": STEP * steps,
                    "statistics": start,
                    "evaluation": STEP,
                },
            }
    return results


def test_the_full_runs_are_the_same_arms_with_all_of_the_flops(tmp_path, free):
    found = made(tmp_path)
    assert [*found] == [(c, s) for c in SOURCES for s in (*SHARES, FULL)]
    for corpus in SOURCES:
        small, whole = found[corpus, SHARES[0]], found[corpus, FULL]
        assert [a.name for a in small.arms] == [a.name for a in whole.arms]
        assert small.seeds == whole.seeds
        assert small.arms[0].steps == (12, 25, 50)
        assert whole.arms[0].steps == (1250, 2500, 5000)
        assert whole.arms[0].config.optim.warmup == 100


def test_the_selection_aims_where_there_is_a_sample(tmp_path, free):
    found = made(tmp_path)
    modes = {}
    for corpus in SOURCES:
        by = {arm.name: arm.config for arm in found[corpus, FULL].arms}
        modes[corpus] = by["selection"].select.mode
    assert modes == {"clean": "blind", "mixture": "target", "shakespeare": "blind"}


def test_every_run_is_a_job_of_its_own(tmp_path, free):
    found = made(tmp_path)
    jobs = [job for key, plan in found.items() for job in jobs_of(key, plan)]
    assert len({job.name for job in jobs}) == len(jobs) == 3 * 3 * 45
    labels = dict(jobs[0].labels)
    assert labels == {
        "corpus": "clean",
        "share": 0.01,
        "arm": "plain",
        "part": 0.25,
        "seed": 0,
    }


def test_workers_read_the_jobs_that_were_planned(tmp_path, free):
    jobs = [j for key, plan in made(tmp_path).items() for j in jobs_of(key, plan)]
    write_jobs(tmp_path / "runs", jobs)
    assert read_jobs(tmp_path / "runs") == jobs


def test_a_pilot_that_was_right_agrees_and_one_that_was_not_does_not(tmp_path, free):
    found = made(tmp_path)
    made_rows = rows(found, carried_out(found, fades=("start",)))
    assert len(made_rows) == 3 * 2 * 4
    by = {(r["corpus"], r["method"], r["share_fraction"]): r for r in made_rows}
    right = by["clean", "selection", 0.05]
    assert right["predicted_flops_ratio"] == pytest.approx(2.0, rel=0.05)
    assert right["full_flops_ratio"] == pytest.approx(2.0, rel=0.05)
    assert right["predicted_helps"]
    assert right["agrees"]
    assert right["intervals_overlap"]
    worse = by["mixture", "growth", 0.05]
    assert worse["full_flops_ratio_ci_high"] < 1
    assert (worse["predicted_helps"], worse["agrees"]) == (False, True)
    faded = by["shakespeare", "start", 0.05]
    assert faded["predicted_helps"]
    assert not faded["full_helps"]
    assert not faded["agrees"]
    assert not faded["intervals_overlap"]


def test_what_an_arm_of_the_pilot_took_is_told_with_its_statistics(tmp_path, free):
    found = made(tmp_path)
    made_rows = rows(found, carried_out(found))
    by = {(r["method"], r["share_fraction"]): r for r in made_rows}
    both = 2 * 3 * 0.01 * 1.75 + 18 * STEP / UNIT  # steps and evaluations
    assert by["learned", 0.01]["cost_fraction"] == pytest.approx(both, rel=0.02)
    counted = 9 * STATISTICS * 0.99 / UNIT
    assert by["selection", 0.01]["cost_fraction"] == pytest.approx(
        both + counted, rel=0.02
    )


def test_a_method_whose_runs_diverge_has_a_row_that_says_why(tmp_path, free):
    found = made(tmp_path)
    results = carried_out(found)
    for name in results:
        if name.startswith("clean/1/growth_1_"):
            results[name] = {"bits_per_byte": None}
    row = next(
        r
        for r in rows(found, results)
        if (r["corpus"], r["method"]) == ("clean", "growth")
    )
    assert row["predicted_flops_ratio"] is not None
    assert row["full_flops_ratio"] is row["agrees"] is None
    assert "diverged" in row["why"]
    gained, _ = outcome(("clean", FULL), found["clean", FULL], results)
    assert "growth" not in gained


def test_rows_are_fit_for_a_record(tmp_path, free):
    found = made(tmp_path)
    path = write_record(
        "bench.pilot", rows(found, carried_out(found)), "x", {}, out=tmp_path
    )
    assert len(json.loads(path.read_text())["rows"]) == 24


def test_minutes_size_the_full_run_once(tmp_path, free, monkeypatch):
    record = {"flops": {"a": 10**12}, "seconds": {"train": 25.0}}
    monkeypatch.setattr(pilot, "carry_out", lambda *args: (record, True))
    given = argparse.Namespace(
        runs=tmp_path, minutes=20.0, workers=2, seeds=3, share=None
    )
    configs = {c: config(c, tmp_path, tmp_path) for c in SOURCES}
    unit = sized(given, configs)
    seconds = unit * units_of_all(3, 3, (*SHARES, FULL)) / (4e10 * 2)
    assert seconds == pytest.approx(pilot.BUSY * 20 * 60)
    given.minutes = 5.0
    assert sized(given, configs) == unit


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--seeds", "0"], "--seeds"),
        (["--unit", "0"], "--unit"),
        (["--minutes", "-1"], "--minutes"),
        (["--only", "shakespeare"], "input.txt.xz is missing"),
        (["--only", "clean"], "train.txt.xz is missing"),
    ],
)
def test_bad_input_ends_in_one_line(words, said, capsys, tmp_path):
    paths = ["--runs", "--stores", "--data-dir", "--out"]
    folders = [word for flag in paths for word in (flag, str(tmp_path))]
    assert pilot.main([*words, *folders]) == 2
    error = capsys.readouterr().err
    assert error.startswith("pilot: error: ")
    assert said in error
    assert error.count("\n") == 1


def test_a_run_that_is_too_short_for_a_share_is_refused(tmp_path, free):
    configs = {"clean": config("clean", tmp_path, tmp_path)}
    with pytest.raises(UserError, match="give --share"):
        plans(configs, 1e9, (0.01,), 3)
