"""Numbers as people read them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uets_jax.report import units


@given(st.floats(1e-300, 1e30))
def test_si_is_exact_to_its_digits(value):
    text = units.si(value, 4)
    number = float(text.rstrip("kMGTPEZYRQ"))
    power = units.PREFIXES.index(text[-1]) if text[-1] in units.PREFIXES else 0
    assert math.isclose(number * 1000.0**power, value, rel_tol=1e-3)


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        (units.si(0), "0"),
        (units.si(999.6), "1k"),
        (units.si(1.64e6), "1.64M"),
        (units.si(-1500), "-1.5k"),
        (units.si(2e-5), "2e-5"),
        (units.flops(1.23e15), "1.23 PFLOPs"),
        (units.flops(87), "87 FLOPs"),
        (units.duration(0.42), "0.42 s"),
        (units.duration(59.99), "1 min 00 s"),
        (units.duration(3599.9), "1 h 00 min"),
        (units.duration(7500), "2 h 05 min"),
        (units.duration(97200), "1 d 03 h"),
        (units.clock(3723), "1:02:03"),
        (units.memory(512 * 2**20), "512 MiB"),
    ],
)
def test_units(shown, wanted):
    assert shown == wanted


@pytest.mark.parametrize(
    ("longest", "unit"),
    [(119.0, ("s", 1.0)), (120.0, ("min", 60.0)), (1e4, ("h", 3600.0))],
)
def test_an_axis_has_the_unit_of_its_end(longest, unit):
    assert units.time_unit(longest) == unit
    assert units.time_unit(1e9) == ("d", units.DAY)
