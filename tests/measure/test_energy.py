import sys
import types

import pytest

from uets_jax.measure.devices import find
from uets_jax.measure.energy import EnergyMeter, estimate


class NVMLError(Exception):
    pass


def nvml(readings, devices=2):
    """A stand-in for pynvml whose counters (mJ) read `readings` in turn."""
    values = iter(readings)

    def energy(handle):
        value = next(values)
        if value is None:
            raise NVMLError
        return value

    return types.SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: devices,
        nvmlDeviceGetHandleByIndex=lambda i: i,
        nvmlDeviceGetTotalEnergyConsumption=energy,
    )


def test_joules_are_the_counters_difference(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", nvml([1000, 2000, 4000, 6000]))
    meter = EnergyMeter()
    assert meter.source == "nvml"
    assert meter.joules() == pytest.approx(7.0)


def test_without_a_counter_there_is_no_figure(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    meter = EnergyMeter()
    assert (meter.source, meter.joules()) == ("none", None)


def test_a_driver_that_fails_is_no_figure_either(monkeypatch):
    broken = nvml([])

    def fail():
        raise NVMLError

    broken.nvmlInit = fail
    monkeypatch.setitem(sys.modules, "pynvml", broken)
    assert EnergyMeter().source == "none"
    monkeypatch.setitem(sys.modules, "pynvml", nvml([None], devices=1))
    meter = EnergyMeter()
    assert (meter.source, meter.joules()) == ("none", None)


def test_an_estimate_is_watts_times_seconds_and_says_that_it_is_one():
    joules, method = estimate(find("cpu"), 82.4)
    assert joules == pytest.approx(65 * 82.4)
    assert method == (
        "estimate: 65 W (TDP of cpu in devices.json) x 82 s; not measured"
    )
    joules, method = estimate(find("h100"), 0.25, devices=8)
    assert joules == pytest.approx(8 * 700 * 0.25)
    assert method.startswith("estimate: 8 x 700 W (TDP of h100")
    assert method.endswith("x 0.25 s; not measured")
