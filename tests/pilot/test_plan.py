import dataclasses
import re

import pytest

from uets_jax.config import replace_from_dict
from uets_jax.errors import UserError
from uets_jax.pilot import plan
from uets_jax.pilot.plan import LEAST, PARTS, PLAIN, make_plan, together

ARMS = (PLAIN, "selection", "growth", "learned", "start")


@pytest.fixture
def flops(given, free) -> float:
    return float(given.train.steps * free.step)


def test_every_arm_has_the_same_seeds_and_the_same_data(given, flops):
    given = replace_from_dict(given, {"train": {"seed": 5}})
    made = make_plan(given, flops, 0.1, seeds=3)
    assert tuple(arm.name for arm in made.arms) == ARMS
    assert made.seeds == (5, 6, 7)
    shots = made.shots
    assert len({shot.name for shot in shots}) == len(shots) == 5 * 3 * 3
    for part in PARTS:
        for seed in made.seeds:
            same = [s for s in shots if (s.part, s.seed) == (part, seed)]
            assert [s.arm for s in same] == [*ARMS]
            assert {s.config.train.seed for s in same} == {seed}
            assert len({s.config.data for s in same}) == 1
            assert len({s.config.train.batch for s in same}) == 1


def test_steps_are_what_the_parts_of_the_share_pay_for(given, flops, free):
    made = make_plan(given, flops, 0.1)
    by = {arm.name: arm for arm in made.arms}
    assert by[PLAIN].steps == (25, 50, 100)
    for name, start in (("selection", free.statistics), ("start", free.counts)):
        assert by[name].start == start
        paid = [0.1 * (part * flops - start) / free.step for part in PARTS]
        assert by[name].steps == pytest.approx(paid, abs=1)


def test_what_is_counted_once_is_charged_at_its_share_of_the_full_run(
    given, flops, free
):
    made = make_plan(given, flops, 0.1)
    for shot in made.shots:
        start = {"selection": free.statistics, "start": free.counts}.get(shot.arm, 0)
        spent = start + shot.config.train.steps * free.step
        assert shot.waived == pytest.approx(0.9 * start)
        budget = 0.1 * shot.part * flops
        assert spent - shot.waived == pytest.approx(budget, abs=free.step)
    whole = make_plan(given, flops, 1.0)
    assert {shot.waived for shot in whole.shots} == {0}
    assert max(shot.config.train.steps for shot in whole.shots) == 1000


def test_the_cost_is_known_beforehand_and_holds_all_that_is_counted(given, flops, free):
    made = make_plan(given, flops, 0.1, seeds=2)
    by = {arm.name: arm.start for arm in made.arms}
    spent = sum(by[s.arm] + s.config.train.steps * free.step for s in made.shots)
    assert made.expected() == pytest.approx(spent, rel=0.01)


def test_what_is_told_in_steps_shrinks_with_them(given, flops):
    given = replace_from_dict(given, {"growth": {"rewarm": 40, "look_every": 3}})
    shots = make_plan(given, flops, 0.1).shots
    [largest, *_] = [s.config for s in shots if (s.arm, s.part) == ("growth", 1.0)]
    assert (largest.optim.warmup, largest.growth.rewarm) == (10, 4)
    assert largest.growth.look_every == 0
    train = largest.train
    assert (train.eval_every, train.checkpoint_every, train.samples) == (0, 0, 0)
    assert train.eval_tokens == given.train.eval_tokens


def test_a_run_that_is_too_short_is_refused_with_a_share_that_would_do(given, flops):
    with pytest.raises(UserError, match=r"plain: .* is 2.5 steps") as error:
        make_plan(given, flops, 0.01)
    found = re.search(r"give --share ([\d.]+)", str(error.value))
    assert found is not None
    made = make_plan(given, flops, float(found[1]))
    assert made.arms[0].steps[0] >= LEAST


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"seeds": 1}, "--seeds: 1"),
        ({"share": 0.0}, "--share"),
        ({"share": 1.1}, "--share"),
        ({"share": float("nan")}, "--share"),
    ],
)
def test_numbers_that_no_pilot_can_have(given, flops, how, why):
    with pytest.raises(UserError, match=why):
        make_plan(given, flops, **{"share": 0.1, **how})


def test_a_method_that_can_not_be_had_is_skipped_unless_it_was_asked_for(given, flops):
    tied = replace_from_dict(given, {"model": {"tied": True}})
    made = make_plan(tied, flops, 0.1)
    assert "head of its own" in made.skipped["start"]
    assert "start" not in {arm.name for arm in made.arms}
    with pytest.raises(UserError, match="head of its own"):
        make_plan(replace_from_dict(tied, {"train": {"start": "counts"}}), flops, 0.1)


def test_statistics_that_a_run_can_not_pay_for(given, free):
    made = make_plan(given, 4.0 * free.statistics, 0.9)
    assert "takes 2e+07 of the run's 8e+07 FLOPs" in made.skipped["selection"]


def test_growth_that_no_step_is_left_for_is_told_before_anything_runs(given, flops):
    late = {"growth": {"method": "fixed", "plan": "depth=4:0.99"}}
    with pytest.raises(UserError, match=r"growth\.plan: depth=4: share 0.99"):
        make_plan(replace_from_dict(given, late), flops, 0.05)


def test_the_vocabulary_is_that_of_the_text(given, flops, monkeypatch):
    opened = plan.open_session

    def session(config):
        model = dataclasses.replace(config.model, vocab=257)
        return opened(dataclasses.replace(config, model=model))

    monkeypatch.setattr(plan, "open_session", session)
    open_ended = replace_from_dict(given, {"model": {"vocab": 0}})
    made = make_plan(open_ended, flops, 0.1)
    assert {arm.config.model.vocab for arm in made.arms} == {257}


def test_what_helps_is_an_arm_together_if_it_can_be_had(given, flops, free):
    made = make_plan(given, flops, 0.1)
    both = together(made, given, ["selection", "start"])
    *before, last = both.arms
    assert tuple(before) == made.arms
    assert (last.name, last.start) == ("together", free.statistics + free.counts)
    assert last.config.select.method == "aql"
    assert last.config.train.start == "counts"
    assert both.shots[: len(made.shots)] == made.shots
    tied = replace_from_dict(given, {"model": {"tied": True}})
    refused = together(made, tied, ["selection", "start"])
    assert refused.arms == made.arms
    assert "head of its own" in refused.skipped["together"]
