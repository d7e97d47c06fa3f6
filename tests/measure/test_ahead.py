import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uets_jax.config import CurriculumConfig, SelectConfig
from uets_jax.measure.ahead import (
    POINTS,
    Baseline,
    Curve,
    Ratio,
    Setting,
    Smooth,
    comparable,
    costs_of,
    envelope,
    follow,
    invert,
    ratios,
    setting_of,
)

SETTING = Setting("corpus", "tokenizer", "cpu-2", 128, 0, 0.0, True)
CURVE = Curve(
    (4.0, 2.0, 1.0), (1e9, 1e10, 1e12), (10.0, 100.0, 1e4), (1.0, 2.0, 3.0), None
)
BASELINE = Baseline("b2m", SETTING, 1000, CURVE, CURVE)


def test_between_two_points_a_power_law_is_exact():
    """L = 4 (C / 1e9)^-a from the first to the second point."""
    a = math.log(2) / math.log(10)
    for flops in (1e9, 2e9, 5e9, 1e10):
        at = 4.0 * (flops / 1e9) ** -a
        cost, sign = invert(CURVE.quality, CURVE.flops, at)
        assert cost == pytest.approx(flops, rel=1e-9)
        assert sign == ""


def test_beyond_its_ends_there_are_bounds():
    assert invert(CURVE.quality, CURVE.flops, 4.1) == (1e9, "<")
    assert invert(CURVE.quality, CURVE.flops, 0.9) == (1e12, ">")
    found = ratios(CURVE, 0.9, {"flops": 1e11, "tokens": 1e3, "joules": 3.0})
    assert found == {"flops": Ratio(10.0, ">"), "tokens": Ratio(10.0, ">")}
    assert str(found["flops"]) == ">10x"


@given(st.floats(1.0, 4.0), st.floats(1.0, 4.0))
def test_a_better_loss_is_never_cheaper(one, other):
    cost = lambda at: invert(CURVE.quality, CURVE.flops, at)[0]
    assert cost(min(one, other)) >= cost(max(one, other))


def test_the_envelope_keeps_what_is_better_than_all_before():
    flops = [1.0, 2.0, 3.0, 4.0, 5.0]
    found = envelope([3.0, 3.5, 2.0, 2.0, 1.0], {"flops": flops, "tokens": flops})
    assert found == Curve((3.0, 2.0, 1.0), (1.0, 3.0, 5.0), (1.0, 3.0, 5.0))
    assert envelope([3.0, 3.1], {"flops": flops[:2], "tokens": flops[:2]}) is None
    assert envelope([], {"flops": [], "tokens": []}) is None


def test_a_long_curve_is_thinned_and_keeps_its_ends():
    flops = np.linspace(1e9, 1e12, 5000)
    found = envelope([*1.0 / flops], {"flops": flops, "tokens": flops})
    assert found is not None
    assert 50 < len(found.quality) <= POINTS
    assert (found.flops[0], found.flops[-1]) == (1e9, 1e12)


def test_smoothing_lags_behind_nothing():
    """A loss that is linear in ln FLOPs: the mean point lies on the line."""
    state = Smooth()
    for n in range(1, 200):
        flops = 1e9 * n
        state = follow(state, 9 - 0.3 * math.log(flops), {"flops": flops, "tokens": n})
    flops = state.costs()["flops"]
    assert state.loss == pytest.approx(9 - 0.3 * math.log(flops), rel=1e-9)
    assert math.log(flops / state.last) == pytest.approx(-1 / 6, rel=0.05)
    assert state.costs()["tokens"] == pytest.approx(flops / 1e9, rel=1e-9)


def test_what_can_not_be_used_changes_nothing():
    state = follow(Smooth(), 3.0, {"flops": 1.0, "joules": 2.0})
    assert follow(state, math.nan, {"flops": 2.0, "joules": 2.0}) is state
    assert follow(state, 3.0, {"flops": 2.0, "joules": 0.0}) is state
    assert follow(state, 3.0, {}) is state
    without = follow(state, 3.0, {"flops": 2.0})
    assert set(follow(without, 3.0, {"flops": 3.0, "joules": 3.0}).logs) == {"flops"}


def test_the_costs_of_a_record():
    record = {"step": 3, "loss": 2.0, "tokens": 5, "flops": 7, "seconds": 1.5}
    assert costs_of(record) == {"flops": 7.0, "tokens": 5.0, "seconds": 1.5}


def test_the_same_setting_compares_everything():
    assert comparable(BASELINE, SETTING) == (BASELINE, "")


DIFFERENT = [
    ({"tokenizer_sha256": "x"}, "another tokenizer"),
    ({"corpus_sha256": "x"}, "another text"),
    ({"length": 64}, "another window length"),
]


@pytest.mark.parametrize(("change", "why"), DIFFERENT)
def test_another_text_is_not_comparable(change, why):
    found, told = comparable(BASELINE, dataclasses.replace(SETTING, **change))
    assert (found.train, found.valid, found.peak_bytes) == (None, None, None)
    assert told == f"not comparable with b2m: {why}"


def test_part_of_it_may_be_comparable():
    chosen = dataclasses.replace(SETTING, plain=False)
    found, told = comparable(BASELINE, chosen)
    assert (found.train, found.valid) == (None, CURVE)
    assert "training losses" in told
    found, told = comparable(BASELINE, dataclasses.replace(SETTING, eval_tokens=5))
    assert (found.train, found.valid) == (CURVE, None)
    found, told = comparable(BASELINE, dataclasses.replace(SETTING, average=0.1))
    assert (found.train, found.valid) == (CURVE, None)
    assert "optim.average differ" in told
    found, told = comparable(BASELINE, dataclasses.replace(SETTING, machine="h200-1"))
    assert found.train == dataclasses.replace(CURVE, seconds=None)
    assert found.peak_bytes is None
    assert "measured on cpu-2" in told


def test_plain_text_is_drawn_evenly_in_whole_windows(tiny):
    plain = lambda config, own=(): setting_of(config, "c", "t", "cpu-2", own).plain
    change = lambda **rooms: dataclasses.replace(tiny, **rooms)
    assert plain(tiny)
    assert plain(tiny, ["tx"])
    assert not plain(tiny, ["select"])
    assert not plain(change(select=SelectConfig(method="aql")))
    assert not plain(change(curriculum=CurriculumConfig(lengths="8:0.5")))
    assert not plain(change(model=dataclasses.replace(tiny.model, dropout=0.1)))
    assert not plain(change(train=dataclasses.replace(tiny.train, start="counts")))
    assert setting_of(tiny, "c", "t", "cpu-2").length == tiny.model.context
