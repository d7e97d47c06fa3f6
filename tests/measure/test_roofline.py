import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uets_jax.errors import UserError
from uets_jax.measure.devices import find
from uets_jax.measure.roofline import roofline

# peaks 1e11 and 2e11 FLOP/s, 1e10 bytes/s: ridges at 10 and 20 FLOP per byte
DEVICE = dataclasses.replace(
    find("cpu"),
    flops={"float32": 1e11, "bfloat16": 2e11},
    bandwidth_bytes_per_second=1e10,
    source="measured here; price: guessed",
)


def test_figures_by_hand():
    r = roofline(1e10, 8e9, 5e8, 0.2, DEVICE, "float32")
    assert r.mfu == pytest.approx(0.4)
    assert r.achieved_flops == pytest.approx(5e10)
    assert r.intensity == pytest.approx(20)
    assert r.ridge == pytest.approx(10)
    assert (r.bound, r.attainable_flops) == ("compute", 1e11)
    assert r.line == (
        "0.2 s per step: 50 GFLOP/s, 40 % MFU of cpu (100 GFLOP/s float32, measured "
        "here); 20 FLOP/byte against a ridge of 10: compute-bound"
    )


def test_below_the_ridge_memory_is_the_bound():
    r = roofline(1e10, 8e9, 2e9, 1.0, DEVICE, "float32")
    assert (r.bound, r.intensity) == ("memory", pytest.approx(5))
    assert r.attainable_flops == pytest.approx(5e10)
    assert r.line.endswith(
        "8 % MFU of cpu (100 GFLOP/s float32, measured here); "
        "5 FLOP/byte against a ridge of 10: memory-bound"
    )
    assert roofline(1e10, 8e9, 1e9, 1.0, DEVICE, "float32").bound == "compute"
    assert roofline(1e10, 8e9, 1e9, 1.0, DEVICE, "bfloat16").bound == "memory"


@pytest.mark.parametrize("moved", [None, 0, 0.0])
def test_without_bytes_there_is_no_bound(moved):
    r = roofline(1e10, 8e9, moved, 0.2, DEVICE, "float32")
    assert (r.intensity, r.bound, r.attainable_flops) == (None, None, 1e11)
    assert r.line.endswith("40 % MFU of cpu (100 GFLOP/s float32, measured here)")


def test_several_devices_share_the_work_but_not_the_ridge():
    one = roofline(1e10, 8e9, 5e8, 0.2, DEVICE, "float32")
    four = roofline(4e10, 32e9, 2e9, 0.2, DEVICE, "float32", devices=4)
    assert four.mfu == pytest.approx(one.mfu)
    assert four.peak_flops == 4 * one.peak_flops
    assert (four.ridge, four.intensity) == (one.ridge, one.intensity)
    assert "MFU of 4 x cpu (400 GFLOP/s" in four.line


def test_the_dict_is_json():
    r = roofline(1e10, 8e9, 5e8, 0.2, find("h100"), "bfloat16")
    assert json.loads(json.dumps(r.to_dict())) == r.to_dict()
    wanted = "mfu achieved_flops peak_flops intensity ridge bound device peak_source"
    assert {*wanted.split(), "line", "attainable_flops"} == set(r.to_dict())
    assert r.peak_source.startswith("NVIDIA H100 data sheet")
    assert "price" not in r.line


def test_what_can_not_be_placed_is_an_error():
    with pytest.raises(ValueError, match="seconds_per_step is 0"):
        roofline(1, 1, 1, 0, DEVICE, "float32")
    with pytest.raises(UserError, match="no peak for 'float64'"):
        roofline(1, 1, 1, 1, DEVICE, "float64")


amounts = st.floats(1e-3, 1e18)


@given(amounts, amounts, amounts)
def test_the_roof_is_never_above_the_peak_nor_above_the_bandwidth(flops, moved, secs):
    r = roofline(flops, flops, moved, secs, DEVICE, "float32")
    assert r.intensity is not None
    assert r.attainable_flops <= r.peak_flops
    assert r.attainable_flops <= r.intensity * 1e10 * (1 + 1e-9)
    assert (r.bound == "memory") == (r.attainable_flops < r.peak_flops)
    assert r.mfu == pytest.approx(r.achieved_flops / r.peak_flops)
    assert "\n" not in r.line
