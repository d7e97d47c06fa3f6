import dataclasses
import math

import numpy as np
import pytest

from uets_jax.config import GrowthConfig
from uets_jax.errors import UserError
from uets_jax.growth.learned import Policy
from uets_jax.growth.policy import Budget, Signals, decide, situation
from uets_jax.growth.score import FEATURES, features, score
from uets_jax.growth.stages import parse

PLAN = "depth=2:0.3,depth=4:0.6"
STAGES = parse(GrowthConfig(plan=PLAN))
EARLY = Signals(progress=0.2, loss=4.0, slope=-1.0, error=0.05, age=0.2)
BUDGET = Budget(40, 200, 4e10, (1e9, 1.5e9, 2.5e9), STAGES, 0.8)


def configured(tiny, method, **growth):
    return dataclasses.replace(
        tiny, growth=GrowthConfig(method=method, plan=PLAN, **growth)
    )


def learned(**weights):
    values = dict.fromkeys(FEATURES, 0.0) | weights
    return Policy(tuple(values[name] for name in FEATURES), 1.0, 1.0, {}, "c", "s")


@pytest.fixture
def taken(tiny):
    def ask(method, signals=EARLY, budget=BUDGET, policy=None, **growth):
        config = configured(tiny, method, **growth)
        found = decide(policy, signals, config, budget)
        assert found.why
        assert "\n" not in found.why
        return found.stages

    return ask


def test_fixed_takes_every_stage_whose_share_is_reached(taken):
    at = lambda progress: taken("fixed", EARLY._replace(progress=progress))
    assert at(0.29) == ()
    assert at(60 / 200) == STAGES[:1]
    assert at(0.6) == STAGES
    assert at(0.99) == STAGES


@pytest.mark.parametrize("method", ["none", "fixed", "trigger", "probe", "learned"])
def test_without_a_stage_there_is_nothing_to_take(method, taken):
    empty = BUDGET._replace(stages=(), rates=(1e9,))
    assert taken(method, EARLY._replace(progress=0.9), empty) == ()


def test_no_method_keeps_for_ever(taken):
    assert taken("none", EARLY._replace(progress=0.9)) == ()


TRIGGERED = [
    (-1.0, 0.01, False),  # falls fast
    (-0.2, 0.05, True),
    (-0.2, 0.15, False),  # perhaps it falls faster than the threshold
    (-0.2, math.inf, False),
    (0.5, 0.4, False),  # noise: it looks as if it rose
    (0.1, 0.05, True),
    (math.nan, 0.0, False),
]


@pytest.mark.parametrize(("slope", "error", "grows"), TRIGGERED)
def test_trigger_waits_until_the_loss_surely_falls_slowly(slope, error, grows, taken):
    signals = EARLY._replace(slope=slope, error=error)
    assert taken("trigger", signals, slope=0.3) == (STAGES[:1] if grows else ())


@pytest.mark.parametrize("method", ["trigger", "probe"])
def test_a_share_is_the_latest_time(method, taken):
    late = EARLY._replace(progress=0.3, error=math.inf)
    assert taken(method, late) == STAGES[:1]
    assert taken(method, late._replace(progress=0.7)) == STAGES


PROBES = [
    ((), 0),
    ((4.0, 4.1, 4.2), 0),
    ((4.0, 3.9, 4.2), 1),
    ((4.0, 3.9, 3.8), 2),
    ((4.0, 4.0, 4.0), 0),  # a tie keeps
    ((4.0, 3.9, 3.9), 1),
    ((4.0, math.nan, 3.9), 2),
    ((math.nan, math.nan, math.nan), 0),
    ((4.0, 3.9), 1),
]


@pytest.mark.parametrize(("probes", "stages"), PROBES)
def test_probe_takes_the_least_loss(probes, stages, taken):
    assert taken("probe", EARLY._replace(probes=probes)) == STAGES[:stages]


def test_a_probe_may_go_further_than_the_share_asks(taken):
    late = EARLY._replace(progress=0.3, probes=(4.0, 3.9, 3.8))
    assert taken("probe", late) == STAGES
    late = late._replace(progress=0.7, probes=(4.0, 3.9, 4.2))
    assert taken("probe", late) == STAGES


def test_learned_takes_one_stage_where_its_score_is_above_0(taken):
    assert taken("learned", policy=learned(bias=1.0), cost=0.0) == STAGES[:1]
    assert taken("learned", policy=learned(bias=-1.0), cost=0.0) == ()


def test_learned_may_refuse_for_ever(taken):
    last = EARLY._replace(progress=0.79)
    assert taken("learned", last, policy=learned(bias=-1.0)) == ()


def test_learned_takes_nothing_once_the_rate_decays(taken):
    eager = learned(bias=1e6)
    assert taken("learned", EARLY._replace(progress=0.8), policy=eager) == ()
    assert taken("learned", EARLY._replace(progress=0.75), policy=eager) == STAGES[:1]


def test_a_high_enough_cost_always_refuses(taken):
    eager = learned(bias=100.0, progress=50.0, fall=50.0, price=-5.0)
    for slope in (-3.0, 0.0, 2.0):
        signals = EARLY._replace(slope=slope)
        assert taken("learned", signals, policy=eager, cost=1.0) == STAGES[:1]
        assert taken("learned", signals, policy=eager, cost=1e7) == ()
        assert taken("learned", signals, policy=eager, cost=math.inf) == ()


def test_a_stage_that_prunes_is_taken_the_more_readily_the_higher_the_cost(taken):
    cheaper = BUDGET._replace(rates=(1e9, 5e8, 5e8))
    shy = learned(bias=-1.0)
    assert taken("learned", budget=cheaper, policy=shy, cost=0.01) == ()
    assert taken("learned", budget=cheaper, policy=shy, cost=100.0) == STAGES[:1]


def test_an_unknown_slope_is_no_error(taken):
    unknown = EARLY._replace(slope=math.nan, error=math.inf)
    assert taken("learned", unknown, policy=learned(bias=1.0)) == ()
    unknown = EARLY._replace(slope=0.0, error=math.inf)
    assert taken("learned", unknown, policy=learned(uncertainty=1.0)) == STAGES[:1]


def test_the_decision_is_the_sign_of_the_shared_score(tiny):
    rng = np.random.default_rng(0)
    config = configured(tiny, "learned", cost=0.5)
    for _ in range(20):
        weights = rng.normal(size=len(FEATURES))
        policy = learned(**dict(zip(FEATURES, map(float, weights), strict=True)))
        seen = features(situation(EARLY, 0.5, BUDGET), np)
        grows = bool(score(weights, seen, np) > 0)
        assert bool(decide(policy, EARLY, config, BUDGET).stages) == grows


def test_learned_needs_a_policy(tiny):
    with pytest.raises(UserError, match=r"growth\.method"):
        decide(None, EARLY, configured(tiny, "learned"), BUDGET)
