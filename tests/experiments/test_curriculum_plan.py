from pathlib import Path

import pytest

from experiments import arms
from experiments.curriculum_plan import (
    CURVE_TOKENS,
    EVAL_EVERY,
    LENGTHS,
    RANDOM,
    CurriculumPlan,
    Options,
    choices,
    pacing_arms,
)
from uets_jax.config import CurriculumConfig, SelectConfig, candidates
from uets_jax.curriculum.length import parse
from uets_jax.curriculum.pacing import PACINGS
from uets_jax.validation import validate


@pytest.fixture(scope="module")
def jobs():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arms, "step_flops", lambda arm, depth, batch: 10**8)
        return CurriculumPlan(Options(Path("stores"), seeds=2, unit=1e11))({})


def test_every_measure_every_pacing_and_every_warm_up_has_an_arm():
    found = pacing_arms()
    assert found[0] == RANDOM
    assert len({arm.name for arm in found}) == len(found)
    measures = {arm.difficulty for arm in found if arm.pacing == "linear"}
    assert measures == {*choices("difficulty")} - {"none"}
    assert len(measures) >= 6
    assert {arm.pacing for arm in found if arm.difficulty == "rarity"} == {*PACINGS}
    assert {arm.lengths for arm in found} == {"", *LENGTHS}
    assert all(parse(lengths, arms.LENGTH) for lengths in LENGTHS)


def test_random_order_is_that_of_a_run_without_a_curriculum():
    assert RANDOM.curriculum == CurriculumConfig()


def test_runs_differ_in_the_order_of_the_data_alone(jobs):
    assert len({job.name for job in jobs}) == len(jobs) == 2 * len(pacing_arms())
    for job in jobs:
        c = job.config
        validate(c)
        assert c.select == SelectConfig()
        assert c.data.source == "tokens:stores/clean.a"
        assert c.train.steps == 250  # a quarter of U, at 10^8 a step
        assert (c.train.eval_every, c.train.eval_tokens) == (EVAL_EVERY, CURVE_TOKENS)
        assert c.model == jobs[0].config.model
        assert c.optim == jobs[0].config.optim
        looked_at = c.curriculum.candidates if c.curriculum.difficulty != "none" else 1
        assert candidates(c) == looked_at


def test_labels_say_what_the_config_is(jobs):
    for job in jobs:
        labels, curriculum = dict(job.labels), job.config.curriculum
        assert labels["difficulty"] == curriculum.difficulty
        assert labels["lengths"] == curriculum.lengths
        assert labels["pacing"] in ("", curriculum.pacing)
        assert labels["seed"] == job.config.train.seed
        assert labels["seed"] in (1, 2)
        assert " " not in job.name
        assert ":" not in job.name


def test_what_is_read_off_a_run_knows_its_name(monkeypatch):
    monkeypatch.setattr(arms, "step_flops", lambda arm, depth, batch: 10**8)
    asked = []

    def measure(name):
        asked.append(name)
        return lambda result: {"name": name}

    jobs = CurriculumPlan(Options(Path("x"), 1, 1e11), measure)({})
    assert asked == [job.name for job in jobs]
    assert all(job.measure is not None for job in jobs)
